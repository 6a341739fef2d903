package interlock

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"
)

func TestPollTriesUntilNotLocked(t *testing.T) {
	other := errors.New("another error")
	for _, want := range []error{nil, other} {
		tries := 0
		err := poll(t.Context(), pollInterval{1, time.Millisecond}, func() error {
			if tries++; tries < 5 {
				return ErrLocked
			}
			return want
		})
		if err != want || tries != 5 {
			t.Errorf("poll = %v after %d tries, want %v after 5", err, tries, want)
		}
	}
}

func TestPollEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	err := poll(ctx, pollInterval{time.Microsecond, time.Hour}, func() error { return ErrLocked })
	if err != context.DeadlineExceeded {
		t.Errorf("poll = %v", err)
	}
}

// Pauses grow from the minimum to the maximum, at first by single nanoseconds.
func TestPollPausesGrow(t *testing.T) {
	for _, p := range []pollInterval{
		{1, 1}, {1, 100}, {time.Millisecond, time.Second}, {time.Second, time.Second}, {1, math.MaxInt64},
	} {
		steps := 0
		for pause := p.min; pause != p.max; steps++ {
			next := p.next(pause)
			if next <= pause || next > p.max {
				t.Fatalf("%v: the pause after %d is %d", p, pause, next)
			}
			pause = next
		}
		if p.next(p.max) != p.max {
			t.Errorf("%v: the pause exceeds the maximum", p)
		}
		if steps > 1000 {
			t.Errorf("%v: %d steps", p, steps)
		}
	}
	if got := (pollInterval{10, 100}).next(1); got < 10 {
		t.Errorf("the pause after one below the minimum is %d", got)
	}
}

func TestJitter(t *testing.T) {
	for _, pause := range []time.Duration{1, 2, 1000, math.MaxInt64} {
		for range 100 {
			if got := jitter(pause); got < pause/2 || got > pause {
				t.Fatalf("jitter(%d) = %d", pause, got)
			}
		}
	}
}
