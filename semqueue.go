package interlock

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How a goroutine gets units:
//
//	passing  nobody waits here, and as far as we know nobody waits elsewhere: it takes what it needs
//	         if there is enough. Several units it takes under the gate's collect lock, or
//	         two who need two each could find one each and both give up. One unit it takes without,
//	         which is quicker; but under that lock, shared, it finds out that there is none.
//	inLine   otherwise. One who joins holds mu (or turn) since it failed to pass, so that none
//	         passes before it.
//	first    of the line of its process: it waits for the queue lock.
//	head     it has the queue lock, or has it from the head before it: the only one on the machine
//	         that keeps units while it waits for more, so that no two wait for each other. It
//	         sets the gate's waiting mark, then watches the slot files, then looks for free
//	         slots, then sleeps; who releases a slot looks for the mark afterwards, and if there
//	         is one, closes a descriptor of the slot file, which wakes the head. So it cannot
//	         miss a unit. What its own process releases it is given directly.
//	granted  it has the units, and has left the line: by itself, or by who released them.
//	gone     it has nothing, and has left the line: by itself.
//
// As soon as the head has what it needs, the next in line is the head, unless somebody foreign
// waits for the queue lock. Who gives up frees what it has before it leaves the queue.
type placeState int8

const (
	inLine placeState = iota
	first
	head
	granted
	gone
)

// A place is a waiter's place in the line of its process.
type place struct {
	need  int64
	elem  *list.Element
	state placeState    // guarded by line.mu; changes to and from head also take mu or turn
	wake  chan struct{} // holds an element if state or got may have changed

	// Of a head, guarded by mu or turn:
	got     int64
	watches bool     // slots that it did not watch before
	checked bool     // the gate was at its path before the last sleep
	ours    bool     // all slots are held by this process, which will wake it
	watcher *watcher // what it sleeps by, or nil
	alarm   *alarm   // what wakes it then; of its own from then on, until it has left the line

	pause time.Duration // how long it sleeps at most
}

func (p *place) notify() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// rouse is notify for a head, who may sleep by the watcher.
func (p *place) rouse() {
	p.notify()
	if p.alarm != nil {
		p.alarm.wake()
	}
}

// A line is the waiters of a process, in order.
type line struct {
	mu     sync.Mutex
	places list.List // of *place
	n      atomic.Int64
}

func (l *line) empty() bool { return l.n.Load() == 0 }

func (l *line) join(need int64) *place {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &place{need: need, wake: make(chan struct{}, 1), pause: shortestPause}
	p.elem = l.places.PushBack(p)
	if l.n.Add(1) == 1 {
		p.state = first
	}
	return p
}

func (l *line) state(p *place) placeState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return p.state
}

// leave takes p out of the line, as granted or gone. If there is one behind it, and it was the first,
// that one is returned, and is now what then says.
func (l *line) leave(p *place, as, then placeState) *place {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.remove(p, as, then)
}

// giveUp takes p out of the line if there is nothing else to give up.
func (l *line) giveUp(p *place) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.state != inLine && p.state != first {
		return false
	}
	l.remove(p, gone, first)
	return true
}

func (l *line) remove(p *place, as, then placeState) *place {
	was := l.places.Front()
	l.places.Remove(p.elem)
	l.n.Add(-1)
	p.state = as
	front := l.places.Front()
	if front == nil || front == was {
		return nil
	}
	next := front.Value.(*place)
	next.state = then
	next.notify()
	return next
}

func (l *line) becomes(p *place, state placeState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.state = state
}

// waitInLine waits until p has its units. It leaves the line, whatever comes.
func (s *FileSemaphore) waitInLine(ctx context.Context, p *place) error {
	defer func() { s.keepAlarm(p.alarm) }()
	for {
		switch s.line.state(p) {
		case inLine:
			select {
			case <-p.wake:
				continue
			case <-ctx.Done():
			}
			if s.line.giveUp(p) {
				return ctx.Err()
			}
		case first:
			if err := s.queue.LockContext(ctx); err != nil {
				s.line.giveUp(p)
				return err
			}
			s.line.becomes(p, head)
		case head:
			if err := s.waitAsHead(ctx, p); err != nil {
				return err
			}
		case granted:
			if err := ctx.Err(); err != nil { // granted and cancelled at once: pretend it was not
				s.undo(func() { s.release(p.need) })
				return err
			}
			return nil
		}
	}
}

// How long a head sleeps at most when it is woken by a watcher: longer and longer. At
// first, because a dying process closes its files a little before its locks are free. Later,
// because there can be programs that give up a lock without closing the file.
const shortestPause = 20 * time.Microsecond

var longestPause, pauseGrowth = 100 * time.Millisecond, time.Duration(2) // but for tests

// waitAsHead waits until p, the head, is granted its units, or has to begin anew as the first.
// After an error it is gone.
func (s *FileSemaphore) waitAsHead(ctx context.Context, p *place) error {
	for s.line.state(p) == head {
		err := s.exclusively(ctx, func() error {
			if s.line.state(p) != head {
				return nil
			}
			err := ctx.Err()
			if err == nil {
				err = s.collect(p)
			}
			if err != nil && err != ErrLocked {
				s.abdicate(p, err)
			}
			return err
		}, func(err error) {
			switch {
			case s.line.state(p) == head:
				s.abdicate(p, ctx.Err())
			case err == nil:
				s.release(p.need)
			case err == errStale:
				s.line.giveUp(p)
			}
		})
		switch {
		case err == ErrLocked:
			s.sleep(ctx, p)
		case err == errAbandoned:
			return ctx.Err()
		case err == errStale:
			return nil
		case err != nil && s.line.state(p) == gone:
			return err
		case err != nil: // the file system did not answer
			s.undo(func() {
				if s.line.state(p) == head {
					s.abdicate(p, err)
				} else {
					s.release(p.need)
				}
			})
			return err
		}
	}
	return nil
}

// keepAlarm takes back an alarm, or nil, that nobody waits for any more, for a head to come. It may still go off: then that one
// looks in vain.
func (s *FileSemaphore) keepAlarm(a *alarm) {
	if a == nil {
		return
	}
	s.lock()
	if s.alarm == nil && !s.closed {
		s.alarm, a = a, nil
	}
	s.unlock()
	a.close()
}

// undo makes a call that needs mu or turn, without waiting for a file system that does not answer.
func (s *FileSemaphore) undo(call func()) {
	exclusively := func() {
		s.lock()
		defer s.unlock()
		call()
	}
	if s.local {
		exclusively()
	} else {
		briefly(exclusively)
	}
}

// serve grants the head its units if it has them, and makes the next in line the head, and so on. All of these are
// woken, but for the caller if it is one.
func (s *FileSemaphore) serve(caller *place) {
	rouse := func(p *place) {
		if p != caller {
			p.rouse()
		}
	}
	for p := s.head; p != nil && p.got == p.need; p = s.head {
		if s.dropStale(p) {
			rouse(p) // to collect others
			return
		}
		s.used += p.need
		s.passOn(p, granted)
		rouse(p)
	}
}

// dropStale closes the slots of p, the head, that are not at their paths any more, and reports whether
// there were any. Otherwise p would be granted units beside those that others can have at the paths, which is for
// those only who had theirs before.
func (s *FileSemaphore) dropStale(p *place) bool {
	if p.need <= 1 { // then it has just been looked at
		return false
	}
	now := clock()
	for i := p.got - 1; i >= 0; i-- {
		if sl := s.held[i]; sl.file.current(now) != nil {
			s.held = slices.Delete(s.held, int(i), int(i+1))
			p.got--
			sl.close()
			s.idle = append(s.idle, sl)
		}
	}
	return p.got < p.need
}

// abdicate frees what p has, who is the head and gives up. After errStale it is the first of the line
// again.
func (s *FileSemaphore) abdicate(p *place, err error) {
	s.head = nil
	s.held = slices.Concat(s.held[p.got:], s.held[:p.got]) // so that what is freed is its own
	s.putBack(p.got, err)
	p.got = 0
	if err == errStale {
		s.leaveQueue()
		s.line.becomes(p, first)
		return
	}
	s.passOn(p, gone)
	s.serve(p) // who needs nothing
}

// passOn takes p, the head, out of the line and lets the next one in, unless somebody foreign is
// waiting: then it has to queue.
func (s *FileSemaphore) passOn(p *place, as placeState) {
	if s.local && s.line.n.Load() > 1 && !s.queueWanted() {
		if s.head = s.line.leave(p, as, head); s.head != nil {
			return
		}
	} else {
		s.head = nil
		s.line.leave(p, as, first)
	}
	s.leaveQueue()
}

func (s *FileSemaphore) queueWanted() bool {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	return s.queue.wanted(clock())
}

// leaveQueue lets the head of another process in, or that of this one who is to come.
func (s *FileSemaphore) leaveQueue() {
	if s.marked {
		s.marked = !s.leaveRole(&s.gate.waiting)
	}
	s.queue.Unlock()
}

// collect takes as many units as p still needs, who is the head. ErrLocked means that there are not
// enough. After errStale, others do not see that p waits.
func (s *FileSemaphore) collect(p *place) error {
	s.head = p
	for {
		now := clock()
		if !p.checked {
			p.watcher = nil
			if err := s.checkGate(now); err != nil {
				return err
			}
		}
		if !s.marked {
			s.marked = s.gate.waiting.tryGate(shared) == nil
		}
		if s.local && s.watcher == nil {
			s.watcher, _ = newWatcher() // or else it polls
		}
		if s.watcher != nil {
			s.watcher.forget(s.lookFirst)
		}
		p.watches = false
		_, err := s.take(p.need-p.got, now)
		if err != nil {
			return err
		}
		if p.got == p.need {
			s.serve(p)
			return nil
		}
		if p.watches {
			// Of several units that are released at once, only one makes itself known: perhaps before it
			// was watched, and after another was looked at.
			continue
		}
		// Before it sleeps: others must see it wait.
		if err := s.queue.file.current(now); err != nil {
			return err
		}
		gate := s.gate
		err = s.checkGate(now)
		if p.checked = err == nil; !p.checked {
			return err
		}
		if gate == s.gate {
			p.watcher, p.ours = nil, len(s.idle) == 0
			if s.marked && s.watched() {
				if p.alarm == nil {
					p.alarm, s.alarm = s.alarm, nil
				}
				if p.alarm == nil {
					p.alarm, _ = newAlarm()
				}
				if p.alarm != nil {
					p.watcher = s.watcher
				}
			}
			return ErrLocked
		}
	}
}

// watched reports whether there is something to be watched, and all of it is.
func (s *FileSemaphore) watched() bool {
	for _, sl := range s.idle {
		if sl.watched == nil || sl.watched != sl.file {
			return false
		}
	}
	return len(s.idle) > 0
}

// watch sees to it that the head wakes when the slot is closed, by whomever.
func (s *FileSemaphore) watch(sl *slot) {
	if s.watcher == nil || sl.watched == sl.file {
		return
	}
	if number, err := s.watcher.add(sl.file.path); err == nil {
		sl.number, sl.watched, s.head.watches = number, sl.file, true
	}
}

// lookFirst sees to it that the slot that the watcher knows by this number, which was closed, is looked at first.
func (s *FileSemaphore) lookFirst(number int) {
	i := slices.IndexFunc(s.idle, func(sl *slot) bool { return sl.number == number })
	if i >= 0 {
		sl := s.idle[i]
		s.idle = append(slices.Delete(s.idle, i, i+1), sl)
	}
}

// sleep waits until there may be units for p, the head, or ctx ends.
func (s *FileSemaphore) sleep(ctx context.Context, p *place) {
	if w := p.watcher; w != nil && waits.TryAcquire(1) {
		defer waits.Release(1)
		defer context.AfterFunc(ctx, p.alarm.wake)()
		if p.alarm.wait(w, p.pause) {
			p.pause = shortestPause
		} else {
			p.pause = min(pauseGrowth*p.pause, longestPause)
		}
		return
	}
	if p.pause = min(max(p.pause+p.pause/16, s.opts.poll.min), s.opts.poll.max); p.ours {
		p.pause = longestPause
	}
	timer := time.NewTimer(jitter(p.pause))
	defer timer.Stop()
	select {
	case <-p.wake:
	case <-ctx.Done():
	case <-timer.C:
	}
}
