package locktest

import (
	"context"
	"errors"
	"fmt"

	"github.com/interlock-go/interlock"
)

func doLocksForOwner(t *rFixture) {
	m, remote, _ := bindOwners(t.open(), t.openRemote(), nil)
	failed := errors.New("failed")
	var outer interlock.Owner
	t.failsWith(start(func() error {
		return m.Do(context.Background(), func(ctx context.Context) error {
			outer, _ = interlock.OwnerFromContext(ctx)
			if outer == (interlock.Owner{}) || outer == m.o {
				return errors.New("no owner created by Do without an owner in its context")
			}
			return m.Do(ctx, func(ctx context.Context) error {
				if inner, _ := interlock.OwnerFromContext(ctx); inner != outer {
					return errors.New("the nested Do has another owner")
				}
				if depth := m.Depth(outer); depth != 2 {
					return fmt.Errorf("depth %d in the nested Do, want 2", depth)
				}
				if remote.tryLock() || m.tryLock() {
					return errors.New("another owner gets the lock during Do")
				}
				return failed
			})
		})
	}), failed)
	wantDepth(t, boundRMutex{m, outer}, 0)
	t.trySucceeds(remote.tryLock)
	t.do(remote.unlock)

	// The owner in the context already holds the lock.
	t.do(m.lock)
	t.succeeds(start(func() error {
		return m.Do(interlock.ContextWithOwner(context.Background(), m.o), func(ctx context.Context) error {
			if o, _ := interlock.OwnerFromContext(ctx); o != m.o || m.Depth(o) != 2 {
				return fmt.Errorf("depth %d for the owner in the context, want 2", m.Depth(m.o))
			}
			return nil
		})
	}))
	wantDepth(t, m, 1)
	t.tryFails(remote.tryLock)
	t.do(m.unlock)

	// Each call without an owner in its context creates a new one.
	var last interlock.Owner
	t.succeeds(start(func() error {
		return m.Do(context.Background(), func(ctx context.Context) error {
			if last, _ = interlock.OwnerFromContext(ctx); last == outer {
				return errors.New("the owner of an earlier call was used again")
			}
			return nil
		})
	}))
}

func doNested(t *rFixture) {
	m := t.open()
	t.name += "-other"
	other := t.open()
	t.succeeds(start(func() error {
		return m.Do(context.Background(), func(ctx context.Context) error {
			o, _ := interlock.OwnerFromContext(ctx)
			err := other.Do(ctx, func(ctx context.Context) error {
				return m.Do(ctx, func(context.Context) error {
					if m.Depth(o) != 2 || other.Depth(o) != 1 {
						return fmt.Errorf("depths %d and %d, want 2 and 1", m.Depth(o), other.Depth(o))
					}
					return nil
				})
			})
			if err == nil && (m.Depth(o) != 1 || other.Depth(o) != 0) {
				return fmt.Errorf("depths %d and %d after the inner Do, want 1 and 0", m.Depth(o), other.Depth(o))
			}
			return err
		})
	}))
}

func doWaits(t *rFixture) {
	m, remote, _ := bindOwners(t.open(), t.openRemote(), nil)
	t.do(remote.lock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var called bool
	waiter := startContext(ctx, func(ctx context.Context) error {
		return m.Do(ctx, func(context.Context) error { called = true; return nil })
	})
	t.blocks(waiter)
	cancel()
	t.failsWith(waiter, context.Canceled)
	for _, ctx := range doneContexts() {
		t.failsWith(startContext(ctx, func(ctx context.Context) error {
			return m.Do(ctx, func(context.Context) error { called = true; return nil })
		}), ctx.Err())
	}
	if called {
		t.Error("Do called the function without the lock")
	}
	waiter = start(func() error { return m.Do(context.Background(), func(context.Context) error { return nil }) })
	t.blocks(waiter)
	t.do(remote.unlock)
	t.succeeds(waiter)
}

func doPanics(t *rFixture) {
	m, remote, _ := bindOwners(t.open(), t.openRemote(), nil)
	value := new(int)
	for _, ctx := range []context.Context{context.Background(), interlock.ContextWithOwner(context.Background(), m.o)} {
		got := t.panics("Do of a function that panics", func() { m.Do(ctx, func(context.Context) error { panic(value) }) })
		if got != value {
			t.Errorf("Do panics with %v, want the value of the function's panic", got)
		}
		wantDepth(t, m, 0)
		t.trySucceeds(remote.tryLock)
		t.do(remote.unlock)
	}
}
