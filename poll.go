package interlock

import (
	"context"
	"math/rand/v2"
	"time"
)

// A pollInterval is the shortest and longest pause between two tries.
type pollInterval struct{ min, max time.Duration }

// longestPoll depends on the system.
var defaultPollInterval = pollInterval{50 * time.Microsecond, longestPoll}

// poll calls try until it returns something else than ErrLocked, or ctx ends. It is for
// where the kernel cannot wait for us.
//
// The pauses grow with the time waited, of which each is about a sixteenth, so that a short wait is
// short and a long one is cheap. They are jittered, so that those who wait together do not try together.
func poll(ctx context.Context, p pollInterval, try func() error) error {
	timer := time.NewTimer(p.min)
	defer timer.Stop()
	for pause := p.min; ; pause = min(pause+pause/16, p.max) {
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

// jitter returns a pause between half and the whole of the given one.
func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }
