package pidfile

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/interlock-go/interlock"
)

// patience is how long Create and Read retry after an error that should pass
// soon.
const patience = time.Second

// retry calls try until it succeeds or fails with an error that will not pass
// soon.
//
// Its pauses are random. Otherwise processes that test whether the lock is held
// could keep it from each other in step.
func retry(try func() error) error {
	for begin := time.Now(); ; time.Sleep(rand.N(time.Millisecond)) {
		err := try()
		if err == nil || !passesSoon(err) || time.Since(begin) >= patience {
			return err
		}
	}
}

// passesSoon reports whether the cause of err should be gone soon: a shared
// lock of a process that looks at the file, or a process that is removing the
// file.
func passesSoon(err error) bool {
	return errors.Is(err, interlock.ErrLocked) || isBeingRemoved(err)
}
