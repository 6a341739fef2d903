//go:build !interlock_bsd

package interlock

import (
	"context"
	"testing"
)

// The objects for one path share one open file.
func TestSecondReentrantObjectOpensNoFile(t *testing.T) {
	path := lockPath(t)
	m := newRMutex(t, path)
	o := NewOwner()
	m.Lock(o)
	m.Unlock(o)
	fds := descriptors(t, "self")
	same := newRMutex(t, path)
	same.Lock(o)
	same.Unlock(o)
	if n := descriptors(t, "self"); n != fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}

// A goroutine is granted the lock and canceled at once, and the file system
// does not answer the unlock. The call returns all the same.
func TestCanceledReentrantLockReturnsThoughUnlockBlocks(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	m, err := NewFileRMutex(path)
	must(t, err)
	r, o := m.lock, NewOwner()
	// Do what a leader does up to the point where it grants the lock to the
	// other goroutines of its owner. It has given up its own hold.
	must(t, r.m.LockContext(t.Context()))
	q, leader := new(queue), &waiter{mode: exclusive}
	r.mu.Lock()
	r.waits[o] = q
	q.add(leader)
	q.lead()
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	w := start(func() error { return m.LockContext(ctx, o) })
	following(t, m, o, 2)
	daemon.Ask("", "silent")
	r.mu.Lock()
	q.remove(leader, removed)
	delete(r.waits, o)
	r.owner, r.depth = o, 1
	q.grant(q.first)
	cancel()
	r.mu.Unlock()
	if err := finish(t, w); err != context.Canceled {
		t.Errorf("LockContext returned %v", err)
	}
	wantDepth(t, m, o, 0)
	daemon.Kill()
	waitFor(t, "the lock is free", func() bool { return m.Close() == nil })
}
