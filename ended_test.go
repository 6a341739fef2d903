package interlock

import (
	"context"
	"os"
	"testing"
	"time"
)

// An oddContext ends with an error that cannot be compared, not even to itself.
type oddContext struct{ context.Context }

type oddError struct{ causes []error }

func (oddError) Error() string { return "odd" }

func (c oddContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return oddError{[]error{err}}
	}
	return nil
}

// A wait that ends with its context returns the context's error, whatever it
// is.
func TestContextWhoseErrorCannotBeCompared(t *testing.T) {
	path, name := lockPath(t), semName(t)
	holder, m, r := newMutex(t, path), newMutex(t, path), newRMutex(t, path)
	user, s := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	holder.Lock()
	wantTry(t, user, 1, true)
	for name, call := range map[string]func(context.Context) error{
		"LockContext":            m.LockContext,
		"RLockContext":           m.RLockContext,
		"FileRMutex.LockContext": func(ctx context.Context) error { return r.LockContext(ctx, NewOwner()) },
		"FileRMutex.Do":          func(ctx context.Context) error { return r.Do(ctx, nil) },
		"Acquire":                func(ctx context.Context) error { return s.Acquire(ctx, 2) },
		"Acquire more than size": func(ctx context.Context) error { return s.Acquire(ctx, 3) },
		"Lock":                   func(ctx context.Context) error { return Lock(ctx, f) },
		"RLock":                  func(ctx context.Context) error { return RLock(ctx, f) },
	} {
		for _, wait := range []time.Duration{0, 5 * time.Millisecond} {
			for others := range 3 { // so that the call leads or is queued
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				var all []<-chan error
				for range others + 1 {
					all = append(all, start(func() error { return call(oddContext{ctx}) }))
				}
				for _, done := range all {
					err := finish(t, done)
					if _, ok := err.(oddError); !ok {
						t.Errorf("%s: %v", name, err)
					}
				}
				cancel()
			}
		}
	}
	holder.Unlock()
	user.Release(1)
}
