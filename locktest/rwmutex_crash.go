package locktest

import (
	"context"
	"math/rand/v2"
	"time"
)

// lockAndUnlock starts a call that locks for writing and unlocks.
func lockAndUnlock(m RWMutex) <-chan error {
	return startFunc(func() { m.Lock(); m.Unlock() })
}

// killedHolder kills a process that holds the lock while others wait.
func killedHolder(t *rwFixture, lock func(RWMutex)) {
	m, other, p := t.open(), t.openRemote(), t.process()
	t.do(func() { lock(t.remote(p)) })
	here, there := lockAndUnlock(m), lockAndUnlock(other)
	t.blocks(here, there)
	p.Kill()
	t.succeeds(here, there)
}

func killedWaiter(t *rwFixture) {
	m, p, other := t.open(), t.process(), t.openRemote()
	t.do(m.RLock)
	startContext(context.Background(), t.remote(p).LockContext)
	t.untilRefused(m.TryRLock, m.RUnlock)
	behind := lockAndUnlock(other)
	t.blocks(behind)
	p.Kill()
	t.do(m.RUnlock)
	t.succeeds(behind)

	// Readers no longer wait for a writer that was killed.
	p = t.process()
	t.do(m.RLock)
	startContext(context.Background(), t.remote(p).LockContext)
	t.untilRefused(m.TryRLock, m.RUnlock)
	reader := startFunc(other.RLock)
	t.blocks(reader)
	p.Kill()
	t.succeeds(reader)
	t.do(other.RUnlock, m.RUnlock)
	t.do(m.Lock, m.Unlock)
}

// rwKills kills busy processes, each at a random moment.
func rwKills(t *rwFixture) {
	m := t.open()
	var busy []*process
	for range 4 {
		p := t.process()
		start(func() error { return p.ask(context.Background(), "keepReading") })
		start(func() error { return p.ask(context.Background(), "keepWriting", 2) })
		busy = append(busy, p)
	}
	for _, p := range busy {
		t.do(m.Lock, m.Unlock)
		time.Sleep(rand.N(5 * time.Millisecond))
		p.Kill()
		t.do(m.Lock, m.Unlock)
		t.do(m.RLock, m.RUnlock)
	}
	t.trySucceeds(m.TryLock)
	t.do(m.Unlock)
}

func rwStoppedHolder(t *rwFixture) {
	if !canStop {
		t.Skip("processes cannot be stopped here")
	}
	m, p, other := t.open(), t.process(), t.openRemote()
	t.do(t.remote(p).Lock)
	p.stop()
	here, there := lockAndUnlock(m), lockAndUnlock(other)
	t.blocks(here, there)
	t.tryFails(m.TryLock, m.TryRLock, other.TryLock, other.TryRLock)
	p.resume()
	t.blocks(here, there)
	t.do(t.remote(p).Unlock)
	t.succeeds(here, there)
}
