package interlock

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// addWaiter adds a waiter to the queue.
func addWaiter(q *queue, m mode, try bool) *waiter {
	w := &waiter{mode: m, try: try}
	q.add(w)
	return w
}

// notified reports whether w was woken since the last call.
func notified(w *waiter) bool {
	select {
	case <-w.wake:
		return true
	default:
		return false
	}
}

// wantQueue fails unless the queue has the given waiters in this order, and
// counts them.
func wantQueue(t *testing.T, q *queue, want ...*waiter) {
	t.Helper()
	var forward, backward []*waiter
	for w := q.first; w != nil; w = w.next {
		forward = append(forward, w)
	}
	for w := q.last; w != nil; w = w.prev {
		backward = append(backward, w)
	}
	slices.Reverse(backward)
	if !slices.Equal(forward, want) || !slices.Equal(backward, want) {
		t.Fatalf("the queue has %d waiters, backward %d, want %d, or in another order", len(forward), len(backward), len(want))
	}
	var waiting [2]int
	tries := 0
	for i, w := range want {
		if w.try {
			tries++
		} else {
			waiting[w.mode]++
		}
		if w.state != queued && (w.state != leading || i > 0) {
			t.Fatalf("waiter %d has the state %d", i, w.state)
		}
	}
	if q.waiting != waiting || q.tries != tries {
		t.Fatalf("the queue counts %v waiters and %d tries, want %v and %d", q.waiting, q.tries, waiting, tries)
	}
	if q.empty() != (len(want) == 0) {
		t.Fatalf("empty() = %t with %d waiters", q.empty(), len(want))
	}
}

func TestQueueIsFirstInFirstOut(t *testing.T) {
	q := new(queue)
	wantQueue(t, q)
	a, b, c := addWaiter(q, shared, false), addWaiter(q, exclusive, false), addWaiter(q, shared, true)
	wantQueue(t, q, a, b, c)
	q.remove(b, removed) // in the middle
	wantQueue(t, q, a, c)
	d := addWaiter(q, exclusive, true)
	q.remove(a, granted) // at the front
	wantQueue(t, q, c, d)
	q.remove(d, refused) // at the end
	wantQueue(t, q, c)
	q.remove(c, removed) // the only one
	wantQueue(t, q)
	for w, want := range map[*waiter]waiterState{a: granted, b: removed, c: removed, d: refused} {
		if w.state != want || w.prev != nil || w.next != nil {
			t.Errorf("a waiter has the state %d, want %d, or is still linked", w.state, want)
		}
	}
}

func TestQueueOfRandomOperations(t *testing.T) {
	q, model := new(queue), []*waiter(nil)
	for range 20000 {
		switch n := len(model); {
		case n == 0 || n < 8 && rand.N(2) == 0:
			model = append(model, addWaiter(q, mode(rand.N(2)), rand.N(3) == 0))
		case rand.N(4) == 0:
			q.lead()
		case rand.N(8) == 0 && model[0].state == leading:
			q.setBlocked(model[0])
			model = slices.DeleteFunc(model, func(w *waiter) bool { return w.try && w.state != leading })
		default:
			i := rand.N(n)
			if rand.N(2) == 0 {
				q.grant(model[i])
			} else {
				q.remove(model[i], removed)
			}
			model = slices.Delete(model, i, i+1)
		}
		wantQueue(t, q, model...)
	}
}

func TestLeadWakesTheFirstWaiter(t *testing.T) {
	q := new(queue)
	q.lead() // no waiter
	a, b := addWaiter(q, exclusive, false), addWaiter(q, exclusive, false)
	for range 2 { // the second call wakes the leader again
		q.lead()
		if a.state != leading || !notified(a) {
			t.Fatal("the first waiter does not lead, or was not woken")
		}
	}
	if b.state != queued || notified(b) {
		t.Error("the second waiter leads, or was woken")
	}
	q.remove(a, removed)
	q.lead()
	if b.state != leading || !notified(b) {
		t.Error("the next waiter does not lead, or was not woken")
	}
}

func TestGrantWakesTheWaiter(t *testing.T) {
	q := new(queue)
	a, b := addWaiter(q, shared, false), addWaiter(q, shared, false)
	q.grant(a)
	wantQueue(t, q, b)
	if a.state != granted || !notified(a) || notified(b) {
		t.Error("the waiter is not granted, or another one was woken")
	}
}

// While the leader has to wait, tries are refused: those that wait, and
// newcomers.
func TestBlockedLeaderRefusesTries(t *testing.T) {
	for _, leaderTries := range []bool{false, true} {
		q := new(queue)
		leader := addWaiter(q, shared, leaderTries)
		try, waiting, last := addWaiter(q, shared, true), addWaiter(q, shared, false), addWaiter(q, exclusive, true)
		q.lead()
		if q.blocked() {
			t.Error("the leader is blocked before it found out")
		}
		q.setBlocked(leader)
		wantQueue(t, q, leader, waiting)
		for _, w := range []*waiter{try, last} {
			if w.state != refused || !notified(w) {
				t.Error("a try was not refused, or not woken")
			}
		}
		if notified(waiting) {
			t.Error("a waiter that is no try was woken")
		}
		if !q.blocked() || !q.refusesTry(shared) || !q.refusesTry(exclusive) {
			t.Error("a newcomer is not refused behind a blocked leader")
		}
		q.remove(leader, removed)
		if q.blocked() {
			t.Error("the queue is blocked without a leader")
		}
	}
}

func TestNewcomersThatMustWait(t *testing.T) {
	for _, c := range []struct {
		mode           mode
		try            bool // of the waiter
		reader, writer bool // whether a newcomer must wait
	}{
		{shared, true, false, false},
		{exclusive, true, false, false},
		{shared, false, false, true},
		{exclusive, false, true, true},
	} {
		q := new(queue)
		if q.refusesTry(shared) || q.refusesTry(exclusive) {
			t.Error("a newcomer is refused although no goroutine waits")
		}
		addWaiter(q, c.mode, c.try)
		if q.refusesTry(shared) != c.reader || q.refusesTry(exclusive) != c.writer {
			t.Errorf("refusesTry = %t, %t behind %+v", q.refusesTry(shared), q.refusesTry(exclusive), c)
		}
	}
}

func TestAwait(t *testing.T) {
	closed := make(chan struct{})
	close(closed)
	for name, c := range map[string]struct {
		done   <-chan struct{}
		change func(q *queue, w *waiter)
		want   waiterState
	}{
		"leads":                     {nil, func(q *queue, w *waiter) { q.lead() }, leading},
		"granted":                   {nil, func(q *queue, w *waiter) { q.grant(w) }, granted},
		"refused":                   {nil, func(q *queue, w *waiter) { q.refuseTries() }, refused},
		"done":                      {closed, func(q *queue, w *waiter) {}, removed},
		"leads although it is done": {closed, func(q *queue, w *waiter) { q.lead() }, leading},
		"granted although done":     {closed, func(q *queue, w *waiter) { q.grant(w) }, granted},
		"refused although done":     {closed, func(q *queue, w *waiter) { q.refuseTries() }, refused},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 { // of two reasons to wake, select takes one at random
				q, mu := new(queue), new(sync.Mutex)
				w := addWaiter(q, shared, true)
				c.change(q, w)
				if got := q.await(mu, c.done, w); got != c.want {
					t.Fatalf("await = %d, want %d", got, c.want)
				}
				if c.want == leading {
					wantQueue(t, q, w)
				} else {
					wantQueue(t, q)
				}
			}
		})
	}
}

func TestAwaitIgnoresWakeUpWithoutChange(t *testing.T) {
	q, mu := new(queue), new(sync.Mutex)
	w := addWaiter(q, exclusive, false)
	w.notify()
	time.AfterFunc(time.Millisecond, func() {
		mu.Lock()
		defer mu.Unlock()
		q.lead()
	})
	if got := q.await(mu, nil, w); got != leading {
		t.Errorf("await = %d, want %d", got, leading)
	}
}

// A waiter that is granted and canceled in the same instant either has the lock
// or has left the queue, never both.
func TestAwaitCanceledAsItIsGranted(t *testing.T) {
	counts := map[waiterState]int{}
	for range 2000 {
		q, mu, done := new(queue), new(sync.Mutex), make(chan struct{})
		w := addWaiter(q, exclusive, false)
		var wasGranted bool
		granting := start(func() error {
			mu.Lock()
			defer mu.Unlock()
			if wasGranted = w.state == queued; wasGranted {
				q.grant(w)
			}
			return nil
		})
		go close(done)
		got := q.await(mu, done, w)
		must(t, finish(t, granting))
		if (got == granted) != wasGranted || got != granted && got != removed {
			t.Fatalf("await = %d, but the waiter was granted: %t", got, wasGranted)
		}
		wantQueue(t, q)
		counts[got]++
	}
	t.Logf("%d granted, %d removed", counts[granted], counts[removed])
}

func TestSleep(t *testing.T) {
	q := new(queue)
	w := addWaiter(q, shared, false)
	done := make(chan struct{})
	sleeps := map[string]func(){
		"without done":  func() { w.sleep(nil) },
		"with done":     func() { w.sleep(done) },
		"no limit":      func() { w.sleepFor(nil, 0) },
		"with a limit":  func() { w.sleepFor(done, 2*patience) },
		"limit, no end": func() { w.sleepFor(nil, 2*patience) },
	}
	for name, sleep := range sleeps {
		asleep := start(func() error { sleep(); return nil })
		select {
		case <-asleep:
			t.Errorf("%s: did not sleep", name)
		case <-time.After(time.Millisecond):
			w.notify()
			must(t, finish(t, asleep))
		}
	}
	w.sleepFor(nil, time.Millisecond) // ends by itself
	close(done)
	must(t, finish(t, start(func() error {
		w.sleep(done)
		w.sleepFor(done, 2*patience)
		for range 2 {
			w.notify() // never blocks
		}
		w.sleep(nil)
		return nil
	})))
}
