package locktest

import (
	"context"
	"errors"
	"io/fs"
)

func unlockFromAnotherGoroutine(t *rwFixture) {
	m, other := t.open(), t.open()
	t.do(m.Lock, m.Unlock, m.RLock, m.RLock, m.RUnlock) // each call on a new goroutine
	t.tryFails(other.TryLock)
	t.do(m.RUnlock)
	t.trySucceeds(other.TryLock)
	t.do(other.Unlock)
}

func rwMisuse(t *rwFixture, m, other, third RWMutex) {
	t.panics("Unlock of an unlocked lock", m.Unlock)
	t.panics("RUnlock of an unlocked lock", m.RUnlock)
	t.do(m.RLock)
	t.panics("Unlock of a lock that is held for reading", m.Unlock)
	if m != other {
		t.panics("Unlock by another object", other.Unlock)
		t.panics("RUnlock by another object", other.RUnlock)
	}
	t.tryFails(third.TryLock)
	t.trySucceeds(third.TryRLock)
	t.do(third.RUnlock, m.RUnlock)
	t.panics("RUnlock after the last reader", m.RUnlock)
	t.do(m.Lock)
	t.panics("RUnlock of a lock that is held for writing", m.RUnlock)
	if m != other {
		t.panics("Unlock by another object", other.Unlock)
		t.panics("RUnlock by another object", other.RUnlock)
	}
	t.tryFails(third.TryRLock)
	t.do(m.Unlock)
	t.trySucceeds(other.TryLock)
	t.do(other.Unlock)
}

func rlocker(t *rwFixture, m, other, third RWMutex) {
	l := m.RLocker()
	t.do(l.Lock, l.Lock)
	t.trySucceeds(other.TryRLock)
	t.do(l.Unlock, other.RUnlock)
	t.tryFails(third.TryLock)
	t.do(l.Unlock)
	t.trySucceeds(third.TryLock)
	reader := startFunc(l.Lock)
	t.blocks(reader)
	t.do(third.Unlock)
	t.succeeds(reader)
	t.do(m.RUnlock)
}

func rwNames(t *rwFixture) {
	m := t.open()
	t.name += "-other"
	other := t.openRemote()
	third := t.open()
	t.do(m.Lock)
	t.trySucceeds(other.TryLock)
	t.tryFails(third.TryRLock)
	t.do(other.Unlock)
	t.trySucceeds(third.TryLock)
	t.do(third.Unlock, m.Unlock)
}

func rwClose(t *rwFixture) {
	m, other := t.open(), t.open()
	refused := func(when string) {
		t.Helper()
		if t.closeLock(m) == nil {
			t.Fatal("Close succeeds while", when)
		}
	}
	t.do(m.Lock)
	refused("locked for writing")
	t.tryFails(other.TryRLock)
	t.do(m.Unlock, m.RLock)
	refused("locked for reading")
	t.tryFails(other.TryLock)
	t.do(m.RUnlock, other.RLock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiter := startContext(ctx, m.LockContext)
	t.untilRefused(other.TryRLock, other.RUnlock)
	refused("a goroutine waits")
	t.do(other.RUnlock)
	t.succeeds(waiter)
	t.do(m.Unlock)

	t.must(t.closeLock(m))
	if err := t.closeLock(m); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Close: error %v, want one that matches fs.ErrClosed", err)
	}
	for name, call := range rwCalls {
		err := t.result(startContext(t.Context(), func(ctx context.Context) error { return call(m, ctx) }))
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: error %v, want one that matches fs.ErrClosed", name, err)
		}
	}
	for name, call := range map[string]func(){
		"Lock":     m.Lock,
		"RLock":    m.RLock,
		"TryLock":  func() { m.TryLock() },
		"TryRLock": func() { m.TryRLock() },
	} {
		if err, _ := t.panics(name+" after Close", call).(error); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close panics with %v, want an error that matches fs.ErrClosed", name, err)
		}
	}
	t.do(other.Lock, other.Unlock) // other objects still work
	again := t.open()
	t.do(again.Lock)
	t.tryFails(other.TryLock)
	t.do(again.Unlock)
}
