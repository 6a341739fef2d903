package interlock

import (
	"context"
	"os"
	"testing"
	"time"
)

// An oddContext ends with an error that cannot be compared, not even to itself.
type oddContext struct{ context.Context }

type oddError struct{ why []error }

func (oddError) Error() string { return "odd" }

func (c oddContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return oddError{[]error{err}}
	}
	return nil
}

// The error of a wait that ends is the context's, whatever that is.
func TestContextWhoseErrorCannotBeCompared(t *testing.T) {
	path, name := lockPath(t), semName(t)
	holder, m, r := newMutex(t, path), newMutex(t, path), newRMutex(t, path)
	user, s := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	holder.Lock()
	wantTry(t, user, 1, true)
	for what, call := range map[string]func(context.Context) error{
		"LockContext":             m.LockContext,
		"RLockContext":            m.RLockContext,
		"FileRMutex":              func(ctx context.Context) error { return r.LockContext(ctx, NewOwner()) },
		"Do":                      func(ctx context.Context) error { return r.Do(ctx, nil) },
		"Acquire":                 func(ctx context.Context) error { return s.Acquire(ctx, 2) },
		"Acquire more than there": func(ctx context.Context) error { return s.Acquire(ctx, 3) },
		"Lock":                    func(ctx context.Context) error { return Lock(ctx, f) },
		"RLock":                   func(ctx context.Context) error { return RLock(ctx, f) },
	} {
		for _, wait := range []time.Duration{0, 5 * time.Millisecond} {
			for waiters := range 3 { // where they are in the queue, or whom they follow
				ctx, cancel := context.WithTimeout(t.Context(), wait)
				odd := oddContext{ctx}
				var all []<-chan error
				for range waiters + 1 {
					all = append(all, start(func() error { return call(odd) }))
				}
				for _, done := range all {
					if err := finish(t, done); !isOdd(err) {
						t.Errorf("%s: %v", what, err)
					}
				}
				cancel()
			}
		}
	}
	holder.Unlock()
	user.Release(1)
}

func isOdd(err error) bool {
	_, is := err.(oddError)
	return is
}
