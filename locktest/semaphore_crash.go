package locktest

import (
	"context"
	"math/rand/v2"
	"time"
)

func killedFreesUnits(t *semFixture) {
	s, p, other := t.open(), t.process(), t.openRemote()
	acquire(t, t.remote(p), 2)
	acquire(t, other, 1)
	acquire(t, s, 1)
	waiter := startAcquire(context.Background(), s, 3)
	t.blocks(waiter)
	p.Kill()
	t.succeeds(waiter)
	wantTry(t, s, 1, false) // only the units of the killed process were freed
	wantTry(t, other, 1, false)
	release(t, s, 4)
	wantTry(t, s, 4, true)
	wantTry(t, s, 1, false)
	release(t, s, 4)
	release(t, other, 1)
}

func killedFirstWaiter(t *semFixture) {
	s, p, other := t.open(), t.process(), t.openRemote()
	acquire(t, s, 2)
	startAcquire(context.Background(), t.remote(p), 3) // the first waiter may already hold one unit
	untilTryFails(t, s, 1)
	small := startAcquire(context.Background(), other, 1)
	t.blocks(small)
	p.Kill()
	t.succeeds(small)
	wantTry(t, s, 1, false)
	release(t, other, 1)
	release(t, s, 2)
	acquire(t, s, 3)
	release(t, s, 3)
}

// semKills kills busy processes, each at a random moment.
func semKills(t *semFixture) {
	s := t.open()
	var busy []*process
	for range 4 {
		p := t.process()
		start(func() error { return p.ask(context.Background(), "keepAcquiring", 3) })
		start(func() error { return p.ask(context.Background(), "acquireAllRepeatedly", 1<<30) })
		busy = append(busy, p)
	}
	for _, p := range busy {
		acquire(t, s, 2)
		release(t, s, 2)
		time.Sleep(rand.N(5 * time.Millisecond))
		p.Kill()
		acquire(t, s, 3)
		release(t, s, 3)
	}
	wantTry(t, s, 3, true)
	release(t, s, 3)
}

func semStopped(t *semFixture) {
	if !canStop {
		t.Skip("processes cannot be stopped here")
	}
	s, p := t.open(), t.process()
	acquire(t, t.remote(p), 1)
	p.stop()
	waiter := startAcquire(context.Background(), s, 2)
	t.blocks(waiter)
	p.resume()
	t.blocks(waiter)
	release(t, t.remote(p), 1)
	t.succeeds(waiter)
	release(t, s, 2)
}
