package interlock

import (
	"context"
	"math/rand/v2"
	"time"
)

// A pollInterval is the shortest and the longest pause between two tries.
type pollInterval struct{ min, max time.Duration }

// longestPoll depends on the system; see sys_*.go.
var defaultPollInterval = pollInterval{50 * time.Microsecond, longestPoll}

// poll calls try until it returns anything but ErrLocked, or ctx is done. It is
// for locks that the kernel cannot wait for.
//
// Each pause is about a sixteenth of the time waited so far. So a short wait
// ends soon, and a long one is cheap.
func poll(ctx context.Context, p pollInterval, try func() error) error {
	timer := time.NewTimer(p.min)
	defer timer.Stop()
	for pause := p.min; ; pause = p.next(pause) {
		if err := try(); err != ErrLocked {
			return err
		}
		timer.Reset(jitter(pause))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// next returns the pause that follows the given one. Pauses grow from any
// minimum, and do not overflow.
func (p pollInterval) next(pause time.Duration) time.Duration {
	if pause = max(pause, p.min); pause >= p.max-pause/16 {
		return p.max
	}
	return max(pause+pause/16, pause+1)
}

// jitter returns a random pause between half of the given one and all of it, so
// that waiters that began together do not try together.
func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }
