package interlock

import (
	"context"
	"io/fs"
	"time"
)

// A waiter is a goroutine that waits for a FileRWMutex of this process.
//
//	queued  → leading  it is the first, and may act on the file: by whoever makes it so
//	queued  → refused  it was to try only, and would have to wait: by the leader
//	queued  → granted  it has the lock, and has left the list: by the holder or a leading reader
//	leading → gone     with the lock or without: by itself
//	queued  → gone     without the lock: by itself, when its context ends
//
// At most one leads, and it is the first. Only who leads, or finds nobody waiting, takes the
// kernel's lock, takes the gate, or exchanges the file, and only while nobody here
// holds the lock; except that a leader takes the gate while its own process's readers still
// hold it, else readers of other processes would go on passing. The last holder gives the lock
// back to the kernel, or hands it on; whoever then is first leads.
type waiter struct {
	mode       hold
	waits      bool // or tries only, which takes a moment where the file system may not answer
	waiting    bool // it leads, and has to wait
	leading    bool
	granted    bool
	refused    bool
	wake       chan struct{} // holds an element if any of these or held may have changed
	prev, next *waiter
}

// lockSlow is lock, with mu held.
func (m *FileRWMutex) lockSlow(ctx context.Context, mode hold, wait bool) error {
	if m.closed {
		return fs.ErrClosed
	}
	if m.first == nil && m.local {
		if err := m.attempt(ctx, mode); err != errNotLeading && (err != ErrLocked || !wait) {
			return err
		}
	}
	if !wait && m.mustWait(mode) {
		return ErrLocked
	}
	w := &waiter{mode: mode, waits: wait, wake: make(chan struct{}, 1)}
	m.push(w)
	w.leading = m.first == w && (m.held == free || m.held == shared)
	for !w.leading {
		m.sleep(ctx, w)
		err := ctx.Err()
		switch {
		case w.granted && err == nil:
			return nil
		case w.granted:
			// Granted and cancelled at once. Pretend it was not.
			m.pretend(mode)
			return err
		case w.refused && err == nil:
			return ErrLocked
		case w.refused:
			return err
		case err != nil && !w.leading:
			m.remove(w)
			return err
		}
	}
	return m.lead(ctx, w)
}

// mustWait reports whether one who wants the lock in this mode would have to wait for somebody
// of this process, be it that it holds the lock, or that it has found that it has to wait.
func (m *FileRWMutex) mustWait(mode hold) bool {
	if m.held == exclusive || m.held == shared && mode == exclusive {
		return true
	}
	for w := m.first; w != nil; w = w.next {
		if w.waiting || w.waits && (mode == exclusive || w.mode == exclusive) {
			return true
		}
	}
	return false
}

// pretend gives back what was granted to somebody who must not wait for an answer to that.
func (m *FileRWMutex) pretend(mode hold) {
	giveBack := m.unlock
	if mode == shared {
		giveBack = m.rUnlock
	}
	if m.local {
		giveBack()
		return
	}
	m.mu.Unlock()
	briefly(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		giveBack()
	})
	m.mu.Lock()
}

// lead gets the lock for w, which leads, and passes the lead on.
func (m *FileRWMutex) lead(ctx context.Context, w *waiter) error {
	var noGate *lockFile     // the file that we must wait for without its gate
	pause := m.opts.poll.min // between tries of tryOwnGate
	for {
		err := ctx.Err()
		if err == nil {
			err = m.attempt(ctx, w.mode)
		}
		if err == ErrLocked && m.held == releasing { // in a moment it is free
			m.sleep(ctx, w)
			continue
		}
		if err == ErrLocked && w.waits && !w.waiting {
			w.waiting = true
			m.refuseTries()
		}
		switch {
		case err != ErrLocked || !w.waits:
		case !m.file.gated && m.file != noGate:
			f := m.file
			m.mu.Unlock()
			err = f.takeGate(ctx, w.mode, m.opts.poll)
			m.mu.Lock()
			if err == errNoGate {
				err = f.tryOwnGate(w.mode)
			}
			switch err {
			case ErrLocked:
				m.pause(ctx, w, jitter(pause))
				pause = min(pause+pause/16, m.opts.poll.max)
				continue
			case errNoGate, errStale:
				noGate = f
				continue
			case nil:
				continue
			}
		case m.held == shared && w.mode == shared:
			// Somebody foreign waits, behind whom we cannot queue. Nobody will tell us when
			// it does not any more.
			m.pause(ctx, w, m.opts.poll.max)
			noGate = nil
			continue
		case m.held != free:
			m.sleep(ctx, w)
			continue
		default:
			err = m.waitLock(ctx, w.mode)
			if err == errStale {
				continue
			}
		}
		m.abdicate(w, err == nil)
		return err
	}
}

// abdicate ends w's lead, and lets in or wakes who comes after it.
func (m *FileRWMutex) abdicate(w *waiter, won bool) {
	if f := m.file; f != nil && f.gated {
		if f.local {
			if f.leaveGate(); f.gated && m.held == free {
				m.discard()
			}
		} else {
			gate := f.gate
			f.gate, f.gated = nil, false
			m.mu.Unlock()
			briefly(gate.closeGate)
			m.mu.Lock()
		}
	}
	m.remove(w)
	if won && m.held == shared {
		for m.first != nil && m.first.mode == shared {
			m.readers++
			m.grant()
		}
	}
	if m.held == free || m.held == shared {
		m.wakeFirst()
	} else if m.held == exclusive {
		m.refuseTries()
	}
}

// refuseTries ends the tries of those who would have to wait.
func (m *FileRWMutex) refuseTries() {
	for w := m.first; w != nil; {
		next := w.next
		if !w.waits && !w.leading {
			m.remove(w)
			w.refused = true
			w.notify()
		}
		w = next
	}
}

// wakeFirst lets the first waiter lead.
func (m *FileRWMutex) wakeFirst() {
	if m.first != nil {
		m.first.leading = true
		m.first.notify()
	}
}

// grant gives the first waiter the lock.
func (m *FileRWMutex) grant() {
	w := m.first
	m.remove(w)
	w.granted = true
	w.notify()
}

func (w *waiter) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// sleep waits until w is notified or ctx ends.
func (m *FileRWMutex) sleep(ctx context.Context, w *waiter) {
	m.mu.Unlock()
	if done := ctx.Done(); done == nil {
		<-w.wake // which costs half of a select
	} else {
		select {
		case <-w.wake:
		case <-done:
		}
	}
	m.mu.Lock()
}

// pause is sleep, for a while at most.
func (m *FileRWMutex) pause(ctx context.Context, w *waiter, while time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, while)
	defer cancel()
	m.sleep(ctx, w)
}

func (m *FileRWMutex) push(w *waiter) {
	if w.prev = m.last; w.prev != nil {
		w.prev.next = w
	} else {
		m.first = w
	}
	m.last = w
}

func (m *FileRWMutex) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		m.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		m.last = w.prev
	}
	w.prev, w.next = nil, nil
}
