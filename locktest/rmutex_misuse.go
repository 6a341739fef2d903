package locktest

import (
	"context"
	"errors"
	"io/fs"

	"github.com/interlock-go/interlock"
)

func objectsAreOneLock(t *rFixture) {
	m, other, remote := bindOwners(t.open(), t.open(), t.openRemote())
	same := boundRMutex{t.open(), m.o}
	t.do(m.lock, same.lock, m.lock) // no object blocks another
	wantDepth(t, m, 3)
	wantDepth(t, same, 3)
	t.trySucceeds(same.tryLock)
	t.do(same.unlock)
	t.tryFails(other.tryLock, remote.tryLock)
	t.do(m.unlock, m.unlock)
	t.tryFails(other.tryLock, remote.tryLock)
	t.panics("Unlock of a lock that another object holds", m.unlock)
	wantDepth(t, same, 1)
	t.do(same.unlock)
	t.trySucceeds(remote.tryLock)
	// A new owner differs from every owner of another process, even if the two
	// print the same.
	for range 50 {
		t.tryFails(boundRMutex{m, interlock.NewOwner()}.tryLock)
	}
	t.do(remote.unlock)
}

func depthDoesNotBlock(t *rFixture) {
	holder, m, remote := bindOwners(t.open(), t.open(), t.openRemote())
	t.do(holder.lock)
	waiters := []<-chan error{startFunc(m.lockAndUnlock), startFunc(remote.lockAndUnlock)}
	t.blocks(waiters...)
	wantDepth(t, holder, 1)
	wantDepth(t, m, 0)
	wantDepth(t, remote, 0)
	wantDepth(t, boundRMutex{holder, interlock.Owner{}}, 0)
	t.do(holder.unlock)
	t.succeeds(waiters...)
}

func rMisuse(t *rFixture, holder, first, second RMutex) {
	m, a, b := bindOwners(holder, first, second)
	zero := boundRMutex{holder, interlock.Owner{}}
	misuse := func(depth int) {
		t.Helper()
		t.panics("Unlock by an owner that does not hold the lock", a.unlock)
		t.panics("Unlock by an owner that does not hold the lock", boundRMutex{holder, a.o}.unlock)
		wantDepth(t, m, depth)
		if _, remote := holder.(remoteRMutex); remote {
			return // the zero Owner cannot be sent to another process
		}
		t.panics("Lock by the zero Owner", zero.lock)
		t.panics("TryLock by the zero Owner", func() { zero.tryLock() })
		t.panics("LockContext by the zero Owner", func() { zero.lockContext(t.Context()) })
		t.panics("TryLockContext by the zero Owner", func() { zero.tryLockContext(t.Context()) })
		t.panics("Unlock by the zero Owner", zero.unlock)
		t.panics("Locker of the zero Owner", func() { zero.Locker(zero.o).Lock() })
		wantDepth(t, m, depth)
	}
	misuse(0)
	t.panics("Unlock of an unlocked lock", m.unlock)
	t.do(m.lock)
	misuse(1)
	t.tryFails(a.tryLock, b.tryLock)
	t.do(m.unlock)
	t.panics("Unlock after the last level", m.unlock)
	t.trySucceeds(b.tryLock)
	t.do(b.unlock)
}

func locker(t *rFixture, holder, first, second RMutex) {
	m, a, b := bindOwners(holder, first, second)
	l := m.Locker(m.o)
	t.do(l.Lock, l.Lock)
	wantDepth(t, m, 2)
	t.do(l.Unlock)
	wantDepth(t, m, 1)
	t.tryFails(a.tryLock)
	waiter := startFunc(b.Locker(b.o).Lock)
	t.blocks(waiter)
	t.do(m.unlock)
	t.succeeds(waiter)
	t.do(b.unlock)
	wantDepth(t, m, 0)
}

func rNames(t *rFixture) {
	a := t.open()
	t.name += "-other"
	m, other, third := bindOwners(a, t.openRemote(), t.open())
	t.do(m.lock)
	t.trySucceeds(other.tryLock)
	t.tryFails(third.tryLock, boundRMutex{third, m.o}.tryLock)
	wantDepth(t, boundRMutex{third, m.o}, 0)
	t.do(other.unlock, m.unlock)
}

func rClose(t *rFixture) {
	m, other, remote := bindOwners(t.open(), t.open(), t.openRemote())
	refused := func(m boundRMutex, when string) {
		t.Helper()
		if t.closeLock(m) == nil {
			t.Fatal("Close succeeds while", when)
		}
	}
	t.do(m.lock, m.lock)
	refused(m, "locked twice")
	t.do(m.unlock)
	refused(m, "locked")
	waiter := startFunc(other.lock)
	t.blocks(waiter)
	refused(other, "a goroutine waits")
	t.tryFails(remote.tryLock)
	t.do(m.unlock)
	t.succeeds(waiter)
	t.do(other.unlock)

	// Close of one object does not affect the others.
	t.do(other.lock)
	t.must(t.closeLock(m))
	t.tryFails(remote.tryLock)
	t.do(other.unlock)
	t.do(remote.lock, remote.unlock)

	if err := t.closeLock(m); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Close: error %v, want one that matches fs.ErrClosed", err)
	}
	for name, call := range map[string]func(context.Context) error{
		"LockContext":    m.lockContext,
		"TryLockContext": m.tryLockContext,
		"Do": func(ctx context.Context) error {
			return m.Do(ctx, func(context.Context) error { return nil })
		},
	} {
		if err := t.result(startContext(t.Context(), call)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: error %v, want one that matches fs.ErrClosed", name, err)
		}
	}
	for name, call := range map[string]func(){"Lock": m.lock, "TryLock": func() { m.tryLock() }} {
		if err, _ := t.panics(name+" after Close", call).(error); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close panics with %v, want an error that matches fs.ErrClosed", name, err)
		}
	}
	again := boundRMutex{t.open(), m.o}
	t.do(again.lock)
	t.tryFails(remote.tryLock)
	t.do(again.unlock)
}
