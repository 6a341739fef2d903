package interlock

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// How a process gets the lock from the kernel and gives it back. What is here is done by the leader
// (see [waiter]), by a holder, or while nobody waits.

const (
	// checkInterval is how long we believe that nobody foreign waits. To ask costs half as
	// much as to lock and unlock.
	checkInterval = 50 * time.Microsecond
	// maxReopen is how often the file can have been replaced since a moment ago without
	// something else being wrong.
	maxReopen = 1000
	// cohortTime is how long the goroutines of a process may hand on an exclusive lock
	// among themselves. Whoever waits at the gate ends that sooner. It is for those who know
	// no gate.
	cohortTime = time.Millisecond
)

// errNotLeading: what is to be done may take time, and is for a leader only.
var errNotLeading = errors.New("interlock: not leading")

// attempt takes the lock if that is possible at once. Otherwise the error is ErrLocked. It may be
// called by the leader, or if there is no waiter and the file is local.
func (m *FileRWMutex) attempt(ctx context.Context, mode hold) error {
	for tries := 0; ; tries++ {
		join := m.held == shared && mode == shared
		if m.held != free && !join {
			return ErrLocked
		}
		if tries == maxReopen {
			return errStale
		}
		now := clock()
		fresh := now-m.checked < checkInterval
		if join && fresh {
			m.readers++
			return nil
		}
		if !m.local && m.first == nil {
			return errNotLeading
		}
		if m.held == free && m.file != nil && m.file.dead {
			m.discard()
		}
		if m.file == nil {
			if err := m.open(ctx); err != nil {
				return err
			}
			continue
		}
		f := m.file
		ask := !fresh && !f.gated
		var err error
		switch {
		case !f.local:
			err = m.attemptUnlocked(ctx, f, mode, join, ask, now)
		case join:
			err = f.join(mode, ask, now)
		default:
			err = f.acquire(mode, ask, now)
		}
		if join && m.held != shared && (err == nil || !ended(ctx, err)) {
			continue // the readers left while mu was not held
		}
		switch {
		case err == errStale && m.held == free:
			m.discard()
			continue
		case err == errStale:
			return ErrLocked // until our readers have left the old file
		case err != nil:
			return err
		}
		if ask {
			m.checked = now
		}
		m.won(mode, now)
		return nil
	}
}

// won notes that a reader or writer more holds the lock.
func (m *FileRWMutex) won(mode hold, now time.Duration) {
	if m.held == free {
		m.held, m.taken = mode, now
		raceAcquire(m.file.handle)
	}
	if mode == shared {
		m.readers++
	}
}

// attemptUnlocked is the heart of attempt where the file system may not answer: mu is
// not held meanwhile.
func (m *FileRWMutex) attemptUnlocked(ctx context.Context, f *lockFile, mode hold, join, ask bool, now time.Duration) error {
	call, dispose := func() error { return f.acquire(mode, ask, now) }, f.closeLock
	if join { // then the readers need f, and there is nothing to undo
		call, dispose = func() error { return f.join(mode, ask, now) }, func() {}
	}
	m.mu.Unlock()
	err := f.call(ctx, call, dispose)
	m.mu.Lock()
	switch {
	case err == errAbandoned:
		if !join {
			m.abandon()
		}
		return ctx.Err()
	case err != nil && ended(ctx, err) && !join:
		m.undo()
	}
	return err
}

// open opens the file, as part of an attempt.
func (m *FileRWMutex) open(ctx context.Context) error {
	var f *lockFile
	call := func() (err error) {
		f, err = m.opts.openLock(m.abs)
		return err
	}
	dispose := func() {
		if f != nil {
			f.closeLock()
		}
	}
	var err error
	if m.local {
		err = call()
	} else {
		m.mu.Unlock()
		err = callFS(ctx, m.device, call, dispose)
		m.mu.Lock()
	}
	if err == errAbandoned {
		return ctx.Err()
	}
	if f != nil { // though ctx may have ended, it is there
		m.adopt(f)
	}
	if err == nil || ended(ctx, err) {
		return err
	}
	return &fs.PathError{Op: "open", Path: m.path, Err: err}
}

// adopt makes f, which is not locked, the file of m.
func (m *FileRWMutex) adopt(f *lockFile) {
	m.file, m.local, m.device, m.checked = f, f.local, f.device(), never
}

// discard gives up the file, with the lock and the gate.
func (m *FileRWMutex) discard() {
	f := m.file
	if f == nil {
		return
	}
	m.file = nil
	if f.local {
		f.close()
		return
	}
	m.mu.Unlock()
	briefly(f.close)
	m.mu.Lock()
}

// abandon gives up the file to a call that was abandoned, which will give up the lock.
func (m *FileRWMutex) abandon() {
	go m.file.closeGate()
	m.file = nil
}

// waitLock waits for the kernel's lock, for the leader, while nobody here holds it.
// After errStale, there is more to do.
func (m *FileRWMutex) waitLock(ctx context.Context, mode hold) error {
	f := m.file
	m.mu.Unlock()
	err := asStale(f.waitLock(ctx, mode, f.closeLock))
	switch err {
	case nil:
		err = f.call(ctx, func() error { return f.current(clock()) }, f.closeLock)
	case errCannotWait: // acquire looks whether the file is current
		err = poll(ctx, m.opts.poll, func() error {
			return f.call(ctx, func() error { return f.acquire(mode, false, clock()) }, f.closeLock)
		})
	}
	m.mu.Lock()
	if err == nil {
		err = ctx.Err()
	}
	switch {
	case err == nil:
		m.won(mode, clock())
	case err == errAbandoned:
		m.abandon()
		return ctx.Err()
	case ended(ctx, err):
		m.undo()
	default:
		m.discard()
	}
	return err
}

// undo unlocks the file after a call that may have locked it, or gives it up.
func (m *FileRWMutex) undo() {
	f := m.file
	var err error
	if f.local {
		err = f.unlock()
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		m.mu.Unlock()
		err = callFS(ctx, f.device(), f.unlock, f.closeLock)
		m.mu.Lock()
	}
	switch err {
	case nil:
	case errAbandoned:
		m.abandon()
	default:
		m.discard()
	}
}

// unlock ends a hold for writing.
func (m *FileRWMutex) unlock() {
	if m.first != nil && m.first.mode == exclusive && m.mayHandOn() {
		m.grant()
		return
	}
	m.release()
}

// mayHandOn reports whether a writer may follow a writer of this process without asking the
// kernel. That gives several times the throughput, at the expense of those who wait in other
// processes. To look at the file each time would take back most of it.
func (m *FileRWMutex) mayHandOn() bool {
	now := clock()
	return m.local && now-m.taken <= cohortTime && !m.wanted(now)
}

// wanted reports whether m, which is locked for writing, must not be handed on, since somebody in
// another process waits for it, or would look for it at another file.
func (m *FileRWMutex) wanted(now time.Duration) bool {
	if now-m.checked < checkInterval {
		return false
	}
	if m.file.join(exclusive, true, now) != nil {
		return true
	}
	m.checked = now
	return false
}

// rUnlock ends a hold for reading.
func (m *FileRWMutex) rUnlock() {
	if m.readers--; m.readers == 0 {
		m.release()
	}
}

// release gives the lock back to the kernel.
func (m *FileRWMutex) release() {
	f := m.file
	if !m.local {
		m.held = releasing
		m.mu.Unlock()
	}
	err := f.unlock()
	if !m.local {
		m.mu.Lock()
	}
	if err != nil || m.first == nil && f.gated { // or the gate could not be left
		f.kill() // and a leader will see to the rest, who may be using the gate
	}
	m.held = free
	m.wakeFirst()
}
