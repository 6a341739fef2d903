//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Inner locks ask nothing of the system: they do not notice that it does not answer any more.
func TestInnerLocksAskNothing(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	m, same := newRMutex(t, path), newRMutex(t, path)
	o := NewOwner()
	ctx := ContextWithOwner(t.Context(), o)
	m.Lock(o)
	stop(t, daemon)
	defer daemon.Signal(unix.SIGCONT)
	must(t, finish(t, start(func() error {
		for range 100 {
			for _, m := range []*FileRMutex{m, same} {
				m.Lock(o)
				err := errors.Join(m.LockContext(ctx, o), m.TryLockContext(ctx, o))
				err = errors.Join(err, m.Do(ctx, func(context.Context) error { return nil }))
				if !m.TryLock(o) || m.Depth(o) != 5 || err != nil {
					return errors.Join(errors.New("not locked again"), err)
				}
				for range 4 {
					m.Unlock(o)
				}
				time.Sleep(checkInterval)
			}
		}
		return nil
	})))
	daemon.Signal(unix.SIGCONT)
	m.Unlock(o)
	wantDepth(t, m, o, 0)
}

// One whose unlock is not answered does not keep others from keeping their deadlines; not even where the race
// detector watches.
func TestDeadlineBesideAnUnansweredUnlock(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	m := newMutex(t, path)
	m.Lock()
	stop(t, daemon)
	defer daemon.Signal(unix.SIGCONT)
	unlocked := start(func() error { m.Unlock(); return nil })
	time.Sleep(20 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := finish(t, start(func() error { return m.LockContext(oddContext{ctx}) })); !isOdd(err) {
		t.Error(err)
	}
	daemon.Signal(unix.SIGCONT)
	must(t, finish(t, unlocked))
}
