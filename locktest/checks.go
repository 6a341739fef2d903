package locktest

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"github.com/interlock-go/interlock"
)

// leavesNoGoroutines fails if call leaves goroutines behind. It runs call once
// before it counts, because a first call may start goroutines that stay.
func leavesNoGoroutines[L lock](t *fixture[L], call func()) {
	call()
	time.Sleep(10 * time.Millisecond)
	// Package os/signal starts a goroutine at the first Notify and keeps it.
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	before := runtime.NumGoroutine()
	for range 10 {
		call()
	}
	t.eventually("as few goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}

// servedInOrder fails unless waiters get the lock in the order in which they
// arrive. Each waiter calls note while it holds the lock.
//
// The waiters start one after the other with a pause. On a busy machine the
// pause may be too short for them to arrive in that order, so the test has
// several attempts.
func servedInOrder[L lock](t *fixture[L], lock, unlock func(), wait func(note func())) {
	t.Helper()
	var order []int
	for range 5 {
		order = nil
		t.do(lock)
		var waiters []<-chan error
		for i := range 10 {
			begun := make(chan struct{})
			waiters = append(waiters, startFunc(func() {
				close(begun)
				wait(func() { order = append(order, i) })
			}))
			<-begun
			time.Sleep(5 * time.Millisecond)
		}
		t.do(unlock)
		t.succeeds(waiters...)
		if slices.IsSorted(order) {
			return
		}
	}
	t.Error("served in the order", order)
}

// repeatCalls makes n calls on each goroutine. A goroutine stops when a call
// fails.
func repeatCalls(goroutines, n int, call func(i int) error) error {
	var all []<-chan error
	for i := range goroutines {
		all = append(all, start(func() error {
			for range n {
				if err := call(i); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	var errs []error
	for _, done := range all {
		errs = append(errs, <-done)
	}
	return errors.Join(errs...)
}

// unlessRefused returns err, or nil if the error is expected: the deadline of
// ctx has passed, or the call was a try and the lock is held.
func unlessRefused(ctx context.Context, try bool, err error) error {
	if err == ctx.Err() && err == context.DeadlineExceeded || try && errors.Is(err, interlock.ErrLocked) {
		return nil
	}
	return err
}

// unlessCanceled returns err, or nil if it is the error of ctx.
func unlessCanceled(ctx context.Context, err error) error {
	if err == ctx.Err() {
		return nil
	}
	return err
}
