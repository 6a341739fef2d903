package interlock

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"
)

// A FileRWMutex is a reader/writer mutual exclusion lock between processes.
// It can be held by any number of readers or a single writer, where both are goroutines in any
// process that has a FileRWMutex for the same file. On Unix it is a flock(2) lock on the whole file,
// so flock(1) and other programs that use flock(2) take part in it.
//
// A FileRWMutex is made by [NewFileRWMutex] and must not be copied. Its methods may be called
// by several goroutines at once. It is not associated with a goroutine: one may lock it and
// another unlock it.
//
// # Waiting
//
// If somebody calls Lock while the lock is held by readers, later calls to RLock,
// in every process, wait until that writer has had its turn. So readers cannot starve a
// writer, nor can one writer another. It follows that a goroutine must not read-lock
// recursively, and that a read lock cannot be upgraded: both wait for themselves, as with
// [sync.RWMutex]. Within a process waiters are served in order. Between processes the order is
// approximate, and for up to 50µs a process may overlook that somebody in another waits.
// Programs that use flock(2) directly can be overtaken, and can overtake.
//
// On Linux a waiting process sleeps in the kernel until it is its turn. Any number of
// goroutines that wait for one FileRWMutex take a single thread. The first in line stops
// others from passing even while its process is stopped (SIGSTOP). To end a wait takes the
// signal SIGURG: a program that ignores it ([os/signal.Ignore]) is made to handle it again, by
// the runtime, as every Go program does by default.
//
// A FileRWMutex that has only read permission on its file (see [WithPerm]) can hold up other
// writers when it waits to write, but not readers, and so can be starved by these.
//
// # Crashes
//
// The operating system holds the lock. When a process ends, in whatever way, its locks are
// free at once. Child processes do not inherit them. A FileRWMutex that is garbage collected
// while it is locked stays locked.
//
// # The lock file
//
// Its contents do not matter and are never touched, and nobody removes it. If it is removed,
// renamed or replaced by others, then whoever holds the lock at that time keeps holding the old
// file, and everybody else moves on to the file that is at the path now, and creates it if need
// be; on the way there,
//
//   - somebody who waits for the old file in the kernel waits until its holder unlocks it;
//   - readers of a FileRWMutex whose readers hold the old file wait until these have left it;
//   - within 50µs, goroutines of a process that holds the old file may join or follow its holder;
//   - that not the file was renamed but its directory, or that something was mounted over it, is
//     noticed within 10ms.
//
// On a file system that is not known to be local (see the package comment), a second file with
// the path of the lock file and ".gate" appended is created when somebody has to wait, and
// remains. Whoever cannot open it can starve and be starved.
//
// # The memory model
//
// In the terminology of [the Go memory model], for goroutines of one process, the n'th call to
// Unlock “synchronizes before” the m'th call to Lock for any n < m, for all FileRWMutexes of
// one file taken together. For any call to RLock, there exists an n such that the n'th call to
// Unlock “synchronizes before” that call to RLock, and the corresponding call to RUnlock
// “synchronizes before” the n+1'th call to Lock.
//
// [the Go memory model]: https://go.dev/ref/mem
type FileRWMutex struct {
	path string
	abs  string // the path to open
	opts options

	// mu guards all below. It is held across system calls if local is set, and never
	// while waiting.
	mu      sync.Mutex
	closed  bool
	held    hold          // how this process holds the lock
	readers int           // how many share it, if shared
	first   *waiter       // who waits, in order
	last    *waiter       //
	file    *lockFile     // nil if it must be opened first
	local   bool          // file is on a file system that answers at once
	checked time.Duration // when file was last seen at its path and with nobody foreign at the gate
	taken   time.Duration // when the kernel gave us the lock
}

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

// NewFileRWMutex returns an unlocked FileRWMutex over the file at path, which is created if it
// does not exist. A relative path is resolved now: a later change of the
// working directory does not matter.
//
// The error is an [*fs.PathError]. Among others it is returned if the file is not a regular
// one (a symbolic link is not followed), can be opened neither for writing nor for reading, or cannot
// be created. Nothing has then been created or changed. That somebody holds the lock is no error.
//
// NewFileRWMutex opens the file, and the FileRWMutex keeps it open until [FileRWMutex.Close].
func NewFileRWMutex(path string, opts ...Option) (*FileRWMutex, error) {
	fail := func(err error) (*FileRWMutex, error) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	o, err := newOptions(opts)
	if err != nil {
		return fail(err)
	}
	abs, err := absolute(path)
	if err != nil {
		return fail(err)
	}
	f, err := openLockFile(abs, o.perm)
	if err != nil {
		return fail(err)
	}
	return &FileRWMutex{path: path, abs: abs, opts: o, file: f, local: f.local, checked: never}, nil
}

// Path returns the path that the FileRWMutex was made with.
func (m *FileRWMutex) Path() string { return m.path }

// Lock locks m for writing, and waits until it can.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRWMutex) Lock() { m.mustLock(exclusive) }

// RLock locks m for reading, and waits until it can.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRWMutex) RLock() { m.mustLock(shared) }

func (m *FileRWMutex) mustLock(mode hold) {
	ctx := context.Background()
	if err := m.lock(ctx, mode, true); err != nil {
		panic(m.wrap(ctx, mode, err))
	}
}

// TryLock tries to lock m for writing and reports whether it succeeded. It fails if
// somebody holds the lock or waits for it, in any process.
//
// For up to 50µs it may overlook who waits in another process.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRWMutex) TryLock() bool { return m.mustTryLock(exclusive) }

// TryRLock tries to lock m for reading and reports whether it succeeded. It fails if a writer
// holds the lock or waits for it, in any process.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRWMutex) TryRLock() bool { return m.mustTryLock(shared) }

func (m *FileRWMutex) mustTryLock(mode hold) bool {
	ctx := context.Background()
	err := m.lock(ctx, mode, false)
	if err != nil && err != ErrLocked {
		panic(m.wrap(ctx, mode, err))
	}
	return err == nil
}

// LockContext locks m for writing, and waits until it can or ctx ends. If ctx ends first, and also if it
// has ended already, the error is ctx.Err() and m is not locked. Nothing of the wait
// remains, unless the file system does not answer: then what it still owes an answer is
// undone when that comes. Other errors are an [*fs.PathError]: they match [errors.ErrUnsupported] if the file
// cannot be locked, and [fs.ErrClosed] if m is closed.
func (m *FileRWMutex) LockContext(ctx context.Context) error {
	return m.wrap(ctx, exclusive, m.lock(ctx, exclusive, true))
}

// RLockContext is [FileRWMutex.LockContext] for reading.
func (m *FileRWMutex) RLockContext(ctx context.Context) error {
	return m.wrap(ctx, shared, m.lock(ctx, shared, true))
}

// TryLockContext is [FileRWMutex.TryLock] with errors like those of [FileRWMutex.LockContext]. If
// the lock cannot be had, the error matches [ErrLocked]. It does not wait, but returns
// ctx.Err() if ctx has ended, or ends while the file system does not answer.
func (m *FileRWMutex) TryLockContext(ctx context.Context) error {
	return m.wrap(ctx, exclusive, m.lock(ctx, exclusive, false))
}

// TryRLockContext is [FileRWMutex.TryLockContext] for reading.
func (m *FileRWMutex) TryRLockContext(ctx context.Context) error {
	return m.wrap(ctx, shared, m.lock(ctx, shared, false))
}

// wrap names the operation and the path in an error of the system.
func (m *FileRWMutex) wrap(ctx context.Context, mode hold, err error) error {
	if err == nil || err == ctx.Err() {
		return err
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return err
	}
	return &fs.PathError{Op: mode.op(), Path: m.path, Err: err}
}

// Unlock unlocks m for writing. It panics if m is not locked for writing.
func (m *FileRWMutex) Unlock() {
	m.mu.Lock()
	if m.held != exclusive {
		m.mu.Unlock()
		panic("interlock: Unlock of FileRWMutex not locked for writing: " + m.path)
	}
	if m.first == nil && m.local && m.file.releaseKnown() { // the shortest way, as in lock
		m.held = free
	} else {
		m.unlock()
	}
	m.mu.Unlock()
}

// RUnlock undoes a single RLock call; it does not affect other readers. It panics
// if m is not locked for reading.
func (m *FileRWMutex) RUnlock() {
	m.mu.Lock()
	if m.held != shared {
		m.mu.Unlock()
		panic("interlock: RUnlock of FileRWMutex not locked for reading: " + m.path)
	}
	if m.readers == 1 && m.first == nil && m.local && m.file.releaseKnown() {
		m.readers, m.held = 0, free
	} else {
		m.rUnlock()
	}
	m.mu.Unlock()
}

// RLocker returns a [sync.Locker] whose Lock and Unlock call m.RLock and m.RUnlock.
func (m *FileRWMutex) RLocker() sync.Locker { return (*rlocker)(m) }

type rlocker FileRWMutex

func (r *rlocker) Lock()   { (*FileRWMutex)(r).RLock() }
func (r *rlocker) Unlock() { (*FileRWMutex)(r).RUnlock() }

// errInUse: closed although it is not idle.
var errInUse = errors.New("locked or waited for")

// Close closes the lock file, without removing it. It is an error, and changes nothing, to close
// an m that is locked by this process, or waited for. After Close, locking m fails with an error
// that matches [fs.ErrClosed], and so does Close.
func (m *FileRWMutex) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return &fs.PathError{Op: "close", Path: m.path, Err: fs.ErrClosed}
	case m.held != free || m.first != nil:
		return &fs.PathError{Op: "close", Path: m.path, Err: errInUse}
	}
	m.closed = true
	m.discard()
	return nil
}

// lock locks m in the given mode. Its errors are ErrLocked if wait is not set, ctx.Err(), or what
// the system says.
func (m *FileRWMutex) lock(ctx context.Context, mode hold, wait bool) error {
	// Done contexts fail even if the lock is free, as in semaphore.Weighted.
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if f := m.file; f != nil && !f.dead && m.local && m.held == free && m.first == nil {
		// What attempt does too, by the shortest way: deeper calls cost a tenth of it all,
		// since the processor mispredicts every return that follows a system call.
		now := clock()
		ask := now-m.checked >= checkInterval
		if (!ask || !f.gateTaken(mode)) && f.acquireKnown(mode, now) {
			if ask {
				m.checked = now
			}
			m.won(mode, now)
			m.mu.Unlock()
			return nil
		}
	}
	err := m.lockSlow(ctx, mode, wait)
	m.mu.Unlock()
	return err
}

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
	var noGate *lockFile // the file that we must wait for without its gate
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
			if err == nil {
				continue
			}
			if err == errNoGate || err == errStale {
				noGate = f
				continue
			}
		case m.held == shared && w.mode == shared:
			// Somebody foreign waits, behind whom we cannot queue. Nobody will tell us when
			// it does not any more.
			pause, cancel := context.WithTimeout(ctx, m.opts.poll.max)
			m.sleep(pause, w)
			cancel()
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
			f.leaveGate()
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
	select {
	case <-w.wake:
	case <-ctx.Done():
	}
	m.mu.Lock()
}

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
		if join && m.held != shared && (err == nil || err != ctx.Err()) {
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
	case err != nil && err == ctx.Err() && !join:
		m.undo()
	}
	return err
}

// open opens the file, as part of an attempt.
func (m *FileRWMutex) open(ctx context.Context) error {
	var f *lockFile
	call := func() (err error) {
		f, err = openLockFile(m.abs, m.opts.perm)
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
		err = callFS(ctx, call, dispose)
		m.mu.Lock()
	}
	if err == errAbandoned {
		return ctx.Err()
	}
	if f != nil { // though ctx may have ended, it is there
		m.file, m.local, m.checked = f, f.local, never
	}
	if err == nil || err == ctx.Err() {
		return err
	}
	return &fs.PathError{Op: "open", Path: m.path, Err: err}
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
	err := f.waitLock(ctx, mode, f.closeLock)
	if err == errCannotWait {
		err = poll(ctx, m.opts.poll, func() error {
			return f.call(ctx, func() error { return f.acquire(mode, false, clock()) }, f.closeLock)
		})
	}
	if err == nil {
		err = f.call(ctx, func() error { return f.current(clock()) }, f.closeLock)
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
	case err == ctx.Err():
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
		err = callFS(ctx, f.unlock, f.closeLock)
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
	if !m.local || now-m.taken > cohortTime {
		return false
	}
	if now-m.checked < checkInterval {
		return true
	}
	if m.file.join(exclusive, true, now) != nil {
		return false
	}
	m.checked = now
	return true
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
	raceRelease(f.handle)
	if !m.local {
		m.held = releasing
		m.mu.Unlock()
	}
	err := f.unlock()
	if !m.local {
		m.mu.Lock()
	}
	if err != nil {
		f.kill() // and a leader will see to the rest, who may be using the gate
	}
	m.held = free
	m.wakeFirst()
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
