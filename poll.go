package interlock

import (
	"context"
	"math/rand/v2"
	"time"
)

// A pollInterval is the shortest and longest pause between two tries.
type pollInterval struct{ min, max time.Duration }

var defaultPollInterval = pollInterval{50 * time.Microsecond, 20 * time.Millisecond}

// poll calls try until it returns something else than ErrLocked, or ctx ends. It is for
// where the kernel cannot wait for us.
//
// The pauses grow, so that a short wait is short and a long one is cheap. They are
// jittered, so that those who wait together do not try together.
func poll(ctx context.Context, p pollInterval, try func() error) error {
	timer := time.NewTimer(p.min)
	defer timer.Stop()
	for pause := p.min; ; pause = min(pause+pause/2, p.max) {
		if err := try(); err != ErrLocked {
			return err
		}
		timer.Reset(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}
