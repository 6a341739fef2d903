// Package atpath opens and locks the file at a path although other processes
// may remove or replace it at any time.
//
// The lock of a file that is no longer at its path protects nothing, because
// other processes open and lock the new file there. [Lock] is the loop that
// does not return until it has the lock of the right file. The other functions
// are for the steps of that loop.
package atpath

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

var (
	// ErrAgain tells [Lock] that the path changed while the file was
	// opened.
	ErrAgain = errors.New("the file at the path changed while it was opened")

	// ErrUnstable means that [Lock] gave up.
	ErrUnstable = errors.New("the file at the path is removed or replaced too often")
)

const (
	// maxRounds is far more than other processes can cause by chance. It
	// bounds the loop on a file system where no open file is ever the one
	// at its path.
	maxRounds = 1000

	// After eagerRounds, Lock pauses before each round, for about a second
	// in all.
	eagerRounds = 100
	maxPause    = 2 * time.Millisecond
)

// Steps are the parts of [Lock] that depend on the kind of file and lock.
// F is an open file.
type Steps[F any] struct {
	// Open opens the file at the path. An error that matches [ErrAgain]
	// means that the path changed in the meantime.
	Open func() (F, error)

	// Lock locks the file, or fails. It need not wait for another holder.
	Lock func(F) error

	// Current reports whether the file is still the one at the path.
	Current func(F) (bool, error)

	// Discard unlocks and closes a file that Lock does not return.
	Discard func(F)
}

// Lock opens and locks the file at a path. It repeats this until the file that
// it locked is the one at the path.
//
//   - If the error is nil, the file is locked, and was still at its path then.
//   - If Steps.Lock fails for a file that is at its path, Lock returns the open
//     file and that error. The caller decides what to do with the file.
//   - Any other error comes with the zero F. It is the error of Steps.Open or
//     Steps.Current, [ErrUnstable], or ctx.Err() if ctx is done when a round
//     begins.
//
// After a failed Steps.Lock, Lock asks for Steps.Current, too. Otherwise a
// caller would wait for the holder of a file that is gone. If both fail, Lock
// returns the error of Steps.Lock.
func Lock[F any](ctx context.Context, s Steps[F]) (F, error) {
	var none F
	for round := range maxRounds {
		if round >= eagerRounds {
			time.Sleep(rand.N(maxPause))
		}
		if err := ctx.Err(); err != nil {
			return none, err
		}
		f, err := s.Open()
		if errors.Is(err, ErrAgain) {
			continue
		}
		if err != nil {
			return none, err
		}
		lockErr := s.Lock(f)
		current, err := false, error(nil)
		if !Forgotten(lockErr) {
			current, err = s.Current(f)
		}
		if current && err == nil {
			return f, lockErr
		}
		s.Discard(f)
		if err != nil {
			return none, cmp.Or(lockErr, err)
		}
	}
	return none, ErrUnstable
}
