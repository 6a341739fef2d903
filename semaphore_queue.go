package interlock

import (
	"context"
	"runtime"
	"time"

	"github.com/interlock-go/interlock/internal/closewatch"
	"github.com/interlock-go/interlock/internal/kernelwait"
)

// The leader of a process's queue acquires units in one of two ways.
//
// It passes if it finds no waiter in another process and enough free slots. To
// acquire several units, it holds the gate's collect lock. Otherwise, two
// processes that each need two units could find one each, and both give up.
//
// If it cannot pass, it waits for the turn, which is a lock file. The leader of
// the process that holds the turn is the head of the machine's queue. Only the
// head keeps units while it waits for more, so no two waiters on the machine
// wait for each other. When the head has its units, the next waiter of its
// process is the head, unless another process waits for the turn.
//
// The head sets the gate's waiting mark, watches the slots, scans them, and
// then sleeps. A release unlocks a slot and then looks for the mark. If there
// is one, the release closes a descriptor of the slot's file, which wakes the
// head. So the head cannot miss a unit. A release in the head's own process
// gives the slot to the head directly.

// lead acquires the units for w, the leader, and then lets the next waiter
// lead.
func (s *FileSemaphore) lead(ctx context.Context, w *waiter) error {
	err := ErrLocked
	if !s.hasTurn {
		err = s.pass(ctx, w.try)
	}
	if err == ErrLocked && !w.try {
		s.setBlocked(w)
		err = s.waitAsHead(ctx)
	}
	if err == nil {
		err = ctx.Err() // acquired and canceled at the same time: give the units back
	}
	if !s.gate.releaseWithin(ctx, func() { s.finish(ctx, w, err) }, func() {
		if err == nil {
			s.release(w.units)
		}
	}) {
		return ctx.Err()
	}
	return err
}

// pass acquires the units for the leader without waiting for a holder, or
// returns ErrLocked.
func (s *FileSemaphore) pass(ctx context.Context, try bool) error {
	// Collecting units and giving them back takes microseconds. But the
	// process that does so may be preempted or stopped. This process may be
	// preempted, too, so count tries instead of measuring time. A caller
	// that can wait tries less often: once it is queued, others see it and
	// stay out.
	const eagerTries, sleepyTries = 100, 60
	for tries := 1; ; tries++ {
		collecting, err := s.tryPass(ctx)
		switch {
		case !collecting, !try && tries > 20, tries > eagerTries+sleepyTries:
			return err
		case tries <= eagerTries:
			runtime.Gosched()
		default:
			time.Sleep(jitter(time.Millisecond))
		}
	}
}

// tryPass is one attempt to pass. If it fails with ErrLocked, collecting says
// that another process collects units, and may give them back soon.
func (s *FileSemaphore) tryPass(ctx context.Context) (collecting bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if !s.mayPass() {
		return false, ErrLocked
	}
	units := s.units()
	if now := clock(); now-s.clearSince() >= checkInterval || s.gate.file == nil {
		if err := s.checkGate(ctx); err != nil {
			return false, err
		}
		mark, waiting := s.gate.waiting, false
		err := s.gate.ask(ctx, func() error { waiting = mark.taken(exclusive); return nil })
		if err != nil {
			return false, err
		}
		if waiting {
			return false, ErrLocked
		}
		s.setClear(now)
	}
	if units > 1 {
		switch s.gateTry(ctx, s.gate.collect, exclusive) {
		case ErrLocked:
			return true, ErrLocked
		case nil: // after any other error, such as a missing right, go on without the lock
			defer s.gateUnlock(ctx, s.gate.collect)
		}
	}
	err = s.scan(ctx)
	if err == ErrLocked && units == 1 {
		// Another process may have taken the unit while collecting,
		// only to give it back. Scan again while no process collects.
		switch s.gateTry(ctx, s.gate.collect, shared) {
		case ErrLocked:
			return true, ErrLocked
		case nil:
			defer s.gateUnlock(ctx, s.gate.collect)
			err = s.scan(ctx)
		}
	}
	if err != nil && ctx.Err() == nil { // otherwise finish does it
		s.giveUp(ctx, err)
	}
	return false, err
}

// giveUp releases the units that the leader collected before it failed with
// err.
func (s *FileSemaphore) giveUp(ctx context.Context, err error) {
	if slots := s.takeCollected(); len(slots) > 0 {
		s.unlockAll(ctx, slots)
	}
	if tooManyOpen(err) {
		s.closeIdle() // other goroutines need the descriptors more
	}
}

// shortestPause is the first of the pauses after which the head looks again
// although no watcher woke it. It is short, because a dying process closes its
// files a little before its locks are released. Later pauses are longer. They
// are for programs that release a lock without closing the file.
const shortestPause = 20 * time.Microsecond

// These are variables so that tests can change them.
var longestPause, pauseGrowth = 100 * time.Millisecond, time.Duration(2)

// waitAsHead waits for the turn, and then until the leader has its units.
func (s *FileSemaphore) waitAsHead(ctx context.Context) error {
	for {
		if !s.hasTurn {
			err := s.turn.try(ctx, exclusive)
			if err == ErrLocked {
				err = s.turn.wait(ctx, exclusive)
			}
			if err != nil {
				return err
			}
			s.hasTurn = true
		}
		err := s.collectAsHead(ctx)
		if err != errStale {
			return err
		}
		// Other processes wait for the turn at another file.
		s.giveUp(ctx, nil)
		s.leaveTurn(ctx)
	}
}

// collectAsHead waits until the head has its units. errStale means that the
// turn is now at another file.
func (s *FileSemaphore) collectAsHead(ctx context.Context) error {
	head := s.becomeHead()
	defer s.endHead()
	checked := false // the gate was at its path just before the last sleep
	for pause := shortestPause; ; {
		var err error
		checked, err = s.headScan(ctx, checked)
		if err != ErrLocked {
			return err
		}
		pause = s.sleep(ctx, head, pause)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// watched reports whether the watcher watches all slots that this process does
// not hold, and whether there are no such slots. The leader calls it.
func (s *FileSemaphore) watched() (all, none bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.idle {
		if sl.watched == nil || sl.watched != sl.file.file {
			return false, false
		}
	}
	// If the head could not even check the gate, it has not tried all slots.
	return s.watcher != nil && len(s.idle) > 0, len(s.idle) == 0 && s.slots == s.size
}

// headScan collects units for the head. ErrLocked means that there are not
// enough, or that the gate cannot be opened now. In the first case, a release
// will wake the head. If checked is true, the gate was found at its path before
// the last sleep. The result is the value of checked for the next call.
func (s *FileSemaphore) headScan(ctx context.Context, checked bool) (bool, error) {
	for {
		if !checked {
			if err := s.checkGate(ctx); err != nil {
				return false, err
			}
		}
		checked = false
		if !s.marked {
			s.marked = s.gateTry(ctx, s.gate.waiting, shared) == nil
		}
		if s.watcher == nil && s.gate.seesCloses() {
			s.watcher, _ = closewatch.New() // without one, the head polls
		}
		if s.watcher != nil {
			s.watcher.Drain(s.lookFirst)
		}
		s.newWatches = false
		err := s.scan(ctx)
		if err == nil {
			if s.dropStale(ctx) {
				continue
			}
			return false, nil
		}
		if err != ErrLocked {
			return false, err
		}
		if s.newWatches {
			// Scan again. Of several units that are released
			// together, the last may have been released before its
			// slot was watched, and after another slot was tried.
			checked = true
			continue
		}
		if err := s.turn.contended(ctx, exclusive); err != nil && err != ErrLocked {
			return false, err
		}
		// Other processes must see that the head waits.
		gate := s.gate
		if err := s.checkGate(ctx); err != nil {
			return false, err
		}
		if gate == s.gate {
			return true, ErrLocked
		}
	}
}

// dropStale releases those of the collected slots that are no longer at their
// paths, and reports whether there were any. The head must not get units on old
// files while other processes acquire units on the new ones. Only units that
// callers already have may stay on old files.
func (s *FileSemaphore) dropStale(ctx context.Context) bool {
	if s.units() <= 1 { // its slot has just been checked
		return false
	}
	var stale, kept []*slot
	for _, sl := range s.takeCollected() {
		if sl.file.contended(ctx, exclusive) != nil {
			sl.close()
			stale = append(stale, sl)
		} else {
			kept = append(kept, sl)
		}
	}
	s.addIdle(stale)
	for _, sl := range kept {
		s.collect(ctx, sl)
	}
	return len(stale) > 0
}

// lookFirst makes a slot whose file was closed the first to be tried. The
// watcher knows the slot by number.
func (s *FileSemaphore) lookFirst(number int) {
	s.slotClosed = true
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, sl := range s.idle {
		if sl.watched != nil && sl.number == number {
			last := len(s.idle) - 1
			s.idle[i], s.idle[last] = s.idle[last], s.idle[i]
			return
		}
	}
}

// sleep waits until there may be units for the head, or ctx is done. It returns
// the next pause.
func (s *FileSemaphore) sleep(ctx context.Context, head *waiter, pause time.Duration) time.Duration {
	if s.slotClosed {
		s.slotClosed = false
		pause = shortestPause
	}
	watched, ours := s.watched()
	if watched && s.marked && kernelwait.Reserve() {
		defer kernelwait.Unreserve()
		if waker := s.prepareWaker(); waker != nil {
			select {
			case <-head.wake:
				return shortestPause
			default:
			}
			stop := context.AfterFunc(ctx, waker.Wake)
			defer stop()
			woken, err := waker.Wait(s.watcher, pause)
			if woken {
				return shortestPause
			}
			if err == nil {
				return min(pauseGrowth*pause, longestPause)
			}
		}
	}
	pause = s.opts.poll.next(pause)
	if ours { // no other process can release a unit
		pause = longestPause
	}
	head.sleepFor(ctx.Done(), jitter(pause))
	return pause
}

// finish ends the lead of w, which acquired its units or failed with err.
func (s *FileSemaphore) finish(ctx context.Context, w *waiter, err error) {
	if err != nil {
		s.giveUp(ctx, err)
	}
	keep := s.hasTurn && s.behind(w) && !s.turn.contendedNow(exclusive)
	for !s.tryFinish(w, err, keep) {
		s.leaveTurn(ctx)
		keep = false
	}
}

// tryFinish removes w from the queue and lets the next waiter lead. It reports
// false if the caller must leave the turn first.
func (s *FileSemaphore) tryFinish(w *waiter, err error, keep bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hasTurn && !(keep && s.queue.last != w) {
		return false
	}
	if err == nil {
		s.held = append(s.held, s.collected...)
		s.collected = nil
	}
	s.queue.remove(w, removed)
	s.queue.lead()
	return true
}

// leaveTurn gives up the turn, so that another process can become the head.
func (s *FileSemaphore) leaveTurn(ctx context.Context) {
	if s.marked {
		s.marked = false
		s.gateUnlock(ctx, s.gate.waiting)
	}
	s.hasTurn = false
	s.turn.unlockUntil(ctx)
	s.turn.repair()
}

// setBlocked records that w, the leader, has to wait.
func (s *FileSemaphore) setBlocked(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.setBlocked(w)
}

// units returns how many units the leader needs in all.
func (s *FileSemaphore) units() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.first.units
}

// mayPass reports whether the units held by this process leave enough for the
// leader.
func (s *FileSemaphore) mayPass() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.first.units <= s.size-int64(len(s.held))
}

// behind reports whether a goroutine waits behind w.
func (s *FileSemaphore) behind(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queue.last != w
}

func (s *FileSemaphore) clearSince() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clear
}

func (s *FileSemaphore) setClear(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear = now
}

// becomeHead makes the leader the head of the machine's queue, so that releases
// in this process give their units to it. It returns the leader.
func (s *FileSemaphore) becomeHead() *waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asHead = true
	return s.queue.first
}

func (s *FileSemaphore) endHead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asHead = false
}

// wakeHead wakes the head, if it is in this process.
func (s *FileSemaphore) wakeHead() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeHeadLocked()
}

func (s *FileSemaphore) wakeHeadLocked() {
	if !s.asHead {
		return
	}
	s.queue.first.notify()
	if s.waker != nil {
		s.waker.Wake()
	}
}

// prepareWaker returns the waker, or nil if none can be made.
func (s *FileSemaphore) prepareWaker() *closewatch.Waker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waker == nil {
		s.waker, _ = closewatch.NewWaker()
	}
	return s.waker
}

// dropWaker closes the waker.
func (s *FileSemaphore) dropWaker() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waker != nil {
		s.waker.Close()
		s.waker = nil
	}
}
