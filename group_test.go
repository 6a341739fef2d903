package interlock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

var errBad = errors.New("bad")

func TestGroupRunsOneFunctionPerUnit(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, other, 1, true)
	g, ctx := s.Group(t.Context())
	var running, most, ran atomic.Int32
	for range 20 {
		g.Go(func() error {
			for now := running.Add(1); ; {
				old := most.Load()
				if now <= old || most.CompareAndSwap(old, now) {
					break
				}
			}
			time.Sleep(time.Millisecond)
			running.Add(-1)
			ran.Add(1)
			return nil
		})
	}
	must(t, g.Wait())
	if most.Load() > 2 || ran.Load() != 20 {
		t.Errorf("%d functions ran, %d at once; want 20, at most 2 at once", ran.Load(), most.Load())
	}
	if ctx.Err() != context.Canceled {
		t.Errorf("after Wait, the context has the error %v", ctx.Err())
	}
	other.Release(1)
	wantTry(t, other, 3, true) // all units are released
	other.Release(3)
}

func TestGroupStopsAfterError(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	g, ctx := s.Group(t.Context())
	fail := make(chan struct{})
	g.Go(func() error {
		<-fail
		return errBad
	})
	if g.TryGo(func() error { return nil }) {
		t.Error("TryGo started a function without a unit")
	}
	waiting := start(func() error {
		g.Go(func() error { t.Error("a function was called after an error"); return nil })
		return nil
	})
	pending(t, waiting)
	close(fail)
	must(t, finish(t, waiting))
	if err := g.Wait(); err != errBad || context.Cause(ctx) != errBad {
		t.Errorf("Wait returned %v, the context's cause is %v", err, context.Cause(ctx))
	}
	if g.TryGo(func() error { return nil }) {
		t.Error("TryGo started a function after the end")
	}
}

// The unit of a function that fails is free only after the context is canceled.
// So a call of Go that waits for it does not acquire it.
func TestGroupStartsNothingWithUnitOfFailure(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	for range 100 {
		g, _ := s.Group(t.Context())
		g.Go(func() error { time.Sleep(100 * time.Microsecond); return errBad })
		g.Go(func() error { t.Error("a function was called after an error"); return nil })
		if err := g.Wait(); err != errBad {
			t.Errorf("Wait returned %v", err)
		}
	}
}

func TestGroupReturnsErrorOfCanceledWait(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	ctx, cancel := context.WithCancel(t.Context())
	wantTry(t, s, 1, true)
	g, _ := s.Group(ctx)
	waiting := start(func() error { g.Go(func() error { return nil }); return g.Wait() })
	pending(t, waiting)
	cancel()
	if err := finish(t, waiting); err != context.Canceled {
		t.Errorf("Wait returned %v", err)
	}
	s.Release(1)
}

func TestTryGoReleasesUnit(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	g, _ := s.Group(t.Context())
	if !g.TryGo(func() error { return errBad }) {
		t.Error("TryGo started no function")
	}
	if err := g.Wait(); err != errBad {
		t.Errorf("Wait returned %v", err)
	}
	wantTry(t, s, 1, true)
	s.Release(1)
}
