package interlock

import (
	"sync"
	"time"
)

// A queue holds the goroutines of this process that wait for one lock, first
// in, first out. The mutex of the lock guards the queue and every waiter in it.
//
// At most one waiter leads: the first. While there are waiters, only the leader
// tries to acquire what lies below the lock (a lock file, the files of a
// semaphore, or another lock). It does so without the mutex. A waiter passes
// through these states:
//
//	queued  → leading  by lead: it is the first, and the lock lets it
//	queued  → granted  by grant: it has the lock, and has left the queue
//	queued  → refused  by refuseTries: it would have to wait, and has left the queue
//	queued  → removed  by itself, when its context is done
//	leading → removed  by itself, with or without the lock
//
// A goroutine that changes the state of another one wakes it.
type queue struct {
	first, last *waiter
	waiting     [2]int // number of waiters that are not tries, by mode
	tries       int    // number of waiters that are tries
}

// A waiter is a goroutine in a queue.
type waiter struct {
	mode    mode
	try     bool // is refused if it would have to wait
	blocked bool // leads, and has found that it has to wait
	state   waiterState

	units int64 // number that it needs of a semaphore

	wake       chan struct{} // holds an element if the waiter should look at its state
	prev, next *waiter
}

type waiterState int8

const (
	queued waiterState = iota
	leading
	granted
	refused
	removed
)

func (q *queue) empty() bool { return q.first == nil }

// add appends a waiter.
func (q *queue) add(w *waiter) {
	w.wake = make(chan struct{}, 1)
	if w.prev = q.last; w.prev != nil {
		w.prev.next = w
	} else {
		q.first = w
	}
	q.last = w
	q.count(w, 1)
}

// remove takes w out of the queue, and sets its last state.
func (q *queue) remove(w *waiter, last waiterState) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next = nil, nil
	w.state = last
	q.count(w, -1)
}

func (q *queue) count(w *waiter, n int) {
	if w.try {
		q.tries += n
	} else {
		q.waiting[w.mode] += n
	}
}

// lead makes the first waiter the leader, or wakes it if it is the leader
// already.
func (q *queue) lead() {
	if w := q.first; w != nil {
		w.state = leading
		w.notify()
	}
}

// grant takes w out of the queue, and tells it that it has the lock.
func (q *queue) grant(w *waiter) {
	q.remove(w, granted)
	w.notify()
}

// setBlocked records that w, the leader, has to wait. All waiters behind it
// then have to wait, too.
func (q *queue) setBlocked(w *waiter) {
	w.blocked = true
	q.refuseTries()
}

// refuseTries takes all tries out of the queue, except the leader.
func (q *queue) refuseTries() {
	for w := q.first; w != nil && q.tries > 0; {
		next := w.next
		if w.try && w.state == queued {
			q.remove(w, refused)
			w.notify()
		}
		w = next
	}
}

// blocked reports whether the leader found that it has to wait.
func (q *queue) blocked() bool { return q.first != nil && q.first.blocked }

// refusesTry reports whether a newcomer in mode m would have to wait for a
// waiter.
func (q *queue) refusesTry(m mode) bool {
	return q.blocked() || q.waiting[exclusive] > 0 || m == exclusive && q.waiting[shared] > 0
}

// await blocks until w is no longer queued, and returns its state. If done is
// closed first, w leaves the queue. The caller must not hold mu, the mutex that
// guards the queue.
func (q *queue) await(mu *sync.Mutex, done <-chan struct{}, w *waiter) waiterState {
	for {
		isDone := w.sleep(done)
		mu.Lock()
		if isDone && w.state == queued {
			q.remove(w, removed)
		}
		state := w.state
		mu.Unlock()
		if state != queued {
			return state
		}
	}
}

func (w *waiter) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// sleep blocks until w is notified or done is closed, and reports whether the
// latter ended it. It needs no mutex.
func (w *waiter) sleep(done <-chan struct{}) (isDone bool) {
	if done == nil {
		<-w.wake // half the cost of a select
		return false
	}
	select {
	case <-w.wake:
		return false
	case <-done:
		return true
	}
}

// sleepFor is like sleep, but returns after d. If d is 0, there is no such
// limit.
func (w *waiter) sleepFor(done <-chan struct{}, d time.Duration) {
	if d == 0 {
		w.sleep(done)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.wake:
	case <-done:
	case <-timer.C:
	}
}
