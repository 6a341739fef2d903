package interlock

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/offload"
)

// A FileRWMutex is a reader/writer mutual exclusion lock between processes. It
// can be held by any number of readers or by a single writer. Readers and
// writers are goroutines of any process that has a FileRWMutex for the same
// file.
//
// A FileRWMutex is created by [NewFileRWMutex] and must not be copied. Its
// methods are safe for concurrent use. As with [sync.RWMutex], one goroutine
// may lock it and another unlock it. A blocked Lock call keeps new readers from
// acquiring the lock, so a goroutine must not read-lock recursively. A read
// lock cannot be upgraded to a write lock.
//
// Within a process, waiters acquire the lock in order. Between processes, the
// order is approximate. With rare exceptions, no waiter starves. On Linux, a
// waiting process sleeps in the kernel; on other systems it polls (see
// [WithPollInterval]).
//
// The operating system holds the lock, and releases it when the process ends.
// On Unix it is a flock(2) lock on the whole file, so flock(1) and other
// programs that use flock(2) take part.
//
// The contents of the lock file do not matter and are never changed, and the
// file is never removed. If another program removes or replaces it, the current
// holder keeps the lock of the old file. All others move on to the file at the
// path.
//
// In the terminology of [the Go memory model], all FileRWMutexes for one file
// together synchronize the goroutines of a process like one [sync.RWMutex].
//
// Limits and rare cases are described in docs/guarantees.md.
//
// [the Go memory model]: https://go.dev/ref/mem
type FileRWMutex struct {
	trace *tracer // or nil
	file  *lockFile

	// mu guards the fields below. It is not held during calls that can take
	// long.
	mu      sync.Mutex
	closed  bool
	held    holdState // how this process holds the lock
	readers int       // number of goroutines that share it
	queue   queue
}

// A holdState says how this process holds the lock of a FileRWMutex. These are
// the transitions:
//
//	free → shared, exclusive   by a goroutine that finds no waiter, or by the leader
//	exclusive → exclusive      by the holder, which hands the lock on to the next waiter
//	shared, exclusive → free   by the last holder; through releasing if that can take long
//
// While the lock is exclusive, no waiter leads. While it is shared, the first
// waiter leads: a reader may join the holders, and a writer announces itself to
// other processes. While it is releasing, the leader, if any, sleeps.
type holdState int8

const (
	free holdState = iota
	heldShared
	heldExclusive
	releasing
)

func (m mode) held() holdState {
	if m == shared {
		return heldShared
	}
	return heldExclusive
}

// NewFileRWMutex returns an unlocked FileRWMutex for the file at path. It
// creates the file if it does not exist, and keeps it open until
// [FileRWMutex.Close]. A relative path is resolved now.
//
// The error is an [*fs.PathError]. Among other cases, NewFileRWMutex fails if
// the file is not a regular file, cannot be created, or can be opened neither
// for reading nor for writing. In these cases, nothing has been created or
// changed. A symbolic link is not followed.
func NewFileRWMutex(path string, opts ...Option) (*FileRWMutex, error) {
	o, err := newOptions(opts)
	var abs string
	if err == nil {
		abs, err = atpath.Absolute(path)
	}
	if err != nil {
		return nil, errorAt("open", path, err)
	}
	f, err := openLockFile(path, abs, o, true)
	if err != nil {
		return nil, err
	}
	return &FileRWMutex{file: f, trace: newTracer(o.trace, path)}, nil
}

// Path returns the path that was passed to [NewFileRWMutex].
func (m *FileRWMutex) Path() string { return m.file.name }

// Lock locks m for writing. It blocks until the lock is available.
//
// Lock panics with an [*fs.PathError] if m is closed, or in the rare case that
// the system refuses the lock.
func (m *FileRWMutex) Lock() { mustLock(m.lock(context.Background(), exclusive, false)) }

// RLock locks m for reading. It blocks until the lock is available. It panics
// like [FileRWMutex.Lock].
func (m *FileRWMutex) RLock() { mustLock(m.lock(context.Background(), shared, false)) }

// TryLock tries to lock m for writing and reports whether it succeeded. It
// fails if any goroutine of any process holds the lock or waits for it. It
// panics like [FileRWMutex.Lock].
func (m *FileRWMutex) TryLock() bool { return mustLock(m.lock(context.Background(), exclusive, true)) }

// TryRLock tries to lock m for reading and reports whether it succeeded. It
// fails if a writer holds the lock or waits for it. It panics like
// [FileRWMutex.Lock].
func (m *FileRWMutex) TryRLock() bool { return mustLock(m.lock(context.Background(), shared, true)) }

// mustLock reports whether err is nil. It panics with any error but
// [ErrLocked], for methods that have no error result.
func mustLock(err error) bool {
	if err != nil && err != ErrLocked {
		panic(err)
	}
	return err == nil
}

// LockContext locks m for writing. It blocks until the lock is available or ctx
// is done. If ctx is done, even before the call, LockContext returns ctx.Err()
// and does not lock m. Any other error is an [*fs.PathError]. It matches
// [fs.ErrClosed] if m is closed, and [errors.ErrUnsupported] if the file system
// has no locks.
func (m *FileRWMutex) LockContext(ctx context.Context) error {
	return m.lock(ctx, exclusive, false)
}

// RLockContext is like [FileRWMutex.LockContext], but locks m for reading.
func (m *FileRWMutex) RLockContext(ctx context.Context) error { return m.lock(ctx, shared, false) }

// TryLockContext never waits for a holder. It is like [FileRWMutex.TryLock],
// but returns the errors of [FileRWMutex.LockContext]. If the lock is not
// available, the error matches [ErrLocked].
func (m *FileRWMutex) TryLockContext(ctx context.Context) error { return m.tryLock(ctx, exclusive) }

// TryRLockContext is like [FileRWMutex.TryLockContext], but locks m for
// reading.
func (m *FileRWMutex) TryRLockContext(ctx context.Context) error { return m.tryLock(ctx, shared) }

func (m *FileRWMutex) tryLock(ctx context.Context, mode mode) error {
	err := m.lock(ctx, mode, true)
	if err == ErrLocked {
		err = pathError(mode.op(), m.file.name, err)
	}
	return err
}

// Unlock unlocks m for writing. It panics if m is not locked for writing.
func (m *FileRWMutex) Unlock() { m.unlock(exclusive) }

// RUnlock undoes a single RLock call; it does not affect other readers. It
// panics if m is not locked for reading.
func (m *FileRWMutex) RUnlock() { m.unlock(shared) }

// RLocker returns a [sync.Locker] whose Lock and Unlock methods call m.RLock
// and m.RUnlock.
func (m *FileRWMutex) RLocker() sync.Locker { return (*rlocker)(m) }

type rlocker FileRWMutex

func (r *rlocker) Lock()   { (*FileRWMutex)(r).RLock() }
func (r *rlocker) Unlock() { (*FileRWMutex)(r).RUnlock() }

// errInUse is the cause if Close fails because of a holder or a waiter.
var errInUse = errors.New("still held or waited for")

// Close closes the lock file but does not remove it. If this process holds m or
// waits for it, Close returns an error and changes nothing. After Close,
// locking m or closing it again fails with an error that matches
// [fs.ErrClosed].
func (m *FileRWMutex) Close() error {
	if err := m.retire(); err != nil {
		return pathError("close", m.file.name, err)
	}
	m.file.close()
	return nil
}

// retire marks m as closed.
func (m *FileRWMutex) retire() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return fs.ErrClosed
	case m.held != free || !m.queue.empty():
		return errInUse
	}
	m.closed = true
	return nil
}

// lock locks m. If try is set, it returns ErrLocked instead of waiting.
func (m *FileRWMutex) lock(ctx context.Context, mode mode, try bool) error {
	if m.trace != nil {
		return m.trace.acquire(mode == shared, 1, try, func(try bool) (bool, error) {
			return true, m.lockUntraced(ctx, mode, try)
		})
	}
	return m.lockUntraced(ctx, mode, try)
}

func (m *FileRWMutex) lockUntraced(ctx context.Context, mode mode, try bool) error {
	// As in semaphore.Weighted, fail if ctx is done, even if m is free.
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if m.tryNowLocked(mode) {
		m.mu.Unlock()
		return nil
	}
	w, err := m.enterLocked(mode, try)
	m.mu.Unlock()
	if w == nil {
		return err
	}
	state := m.queue.await(&m.mu, ctx.Done(), w)
	err = ctx.Err()
	switch state {
	case leading:
		return m.lead(ctx, w)
	case granted:
		if err != nil { // granted and canceled at the same time: give the lock back
			offload.Briefly(m.release)
		}
	case refused:
		err = cmp.Or(err, ErrLocked)
	}
	return err
}

// lockNow locks m if it can do so at once.
func (m *FileRWMutex) lockNow(mode mode) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tryNowLocked(mode)
}

// tryNowLocked is the uncontended path of lock. It allocates nothing.
func (m *FileRWMutex) tryNowLocked(mode mode) bool {
	if m.held != free || m.closed || !m.queue.empty() || !m.file.tryNow(mode) {
		return false
	}
	m.wonLocked(mode)
	return true
}

// enterLocked locks m and returns nil if the caller may join the readers of
// this process. It returns an error if m is closed, or if try is set and the
// caller would have to wait for another goroutine. Otherwise it adds the caller
// to the queue, and returns its waiter.
func (m *FileRWMutex) enterLocked(mode mode, try bool) (*waiter, error) {
	switch {
	case m.closed:
		return nil, pathError(mode.op(), m.file.name, fs.ErrClosed)
	case mode == shared && m.held == heldShared && m.queue.empty() && !m.file.contendedNow(shared):
		m.readers++
		return nil, nil
	case try && (m.queue.refusesTry(mode) || m.held == heldExclusive || m.held == heldShared && mode == exclusive):
		return nil, ErrLocked
	}
	w := &waiter{mode: mode, try: try}
	m.queue.add(w)
	if m.queue.first == w {
		m.leadLocked()
	}
	return w, nil
}

// leadLocked makes the first waiter the leader, or wakes it if it leads
// already. It does nothing while the lock is exclusive or releasing.
func (m *FileRWMutex) leadLocked() {
	if m.held == free || m.held == heldShared {
		m.queue.lead()
	}
}

// wonLocked records that the kernel granted the lock.
func (m *FileRWMutex) wonLocked(mode mode) {
	m.held = mode.held()
	if mode == shared {
		m.readers = 1
	}
}

// lead acquires the lock for w, the leader, and then lets the next waiter lead.
func (m *FileRWMutex) lead(ctx context.Context, w *waiter) error {
	joined, err := m.waitForReaders(ctx, w)
	if err == nil && !joined {
		err = m.file.try(ctx, w.mode)
		if err == ErrLocked && !w.try {
			m.setBlocked(w)
			err = m.file.wait(ctx, w.mode)
		}
	}
	m.file.withdraw()
	if err != nil && m.state() == free {
		m.file.repair()
	}
	m.finish(w, joined, err)
	return err
}

// longestReaderPause bounds the pauses between two looks at the file while
// readers of this process hold its lock.
const longestReaderPause = time.Second

// waitForReaders waits until no goroutine of this process holds m. If w can
// join readers that hold it, waitForReaders makes it do so, and joined is true.
func (m *FileRWMutex) waitForReaders(ctx context.Context, w *waiter) (joined bool, err error) {
	announced := false
	pause := min(m.file.opts.poll.max, longestReaderPause)
	for {
		held, limit := m.state(), time.Duration(0)
		if err := ctx.Err(); err != nil || held == free {
			return false, err
		}
		if held == heldShared {
			contended := m.file.contended(ctx, w.mode)
			switch {
			case contended != nil && contended != ErrLocked && contended != errStale:
				if m.state() != heldShared {
					continue // the last reader may have closed the file
				}
				return false, contended
			case contended == nil && w.mode == shared:
				if m.join() {
					return true, nil
				}
				continue // the last reader has just left
			case w.try:
				return false, ErrLocked
			}
			m.setBlocked(w)
			if !announced && contended != errStale { // no newcomer uses a stale file
				announced = true
				if err := m.file.announce(ctx, w.mode); err != nil && err != errStale {
					return false, err
				}
				continue
			}
			if contended != nil && w.mode == shared {
				// Nothing wakes w when the file is back at its
				// path. And if w cannot queue at the gate
				// behind a waiting process, nothing wakes it
				// when that process gives up. So look again,
				// ever more rarely.
				limit, pause = pause, min(2*pause, longestReaderPause)
			}
		}
		w.sleepFor(ctx.Done(), limit)
	}
}

func (m *FileRWMutex) state() holdState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.held
}

// join adds a reader if this process still has readers, and reports whether it
// did.
func (m *FileRWMutex) join() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held != heldShared {
		return false
	}
	m.readers++
	return true
}

// setBlocked records that w, the leader, has to wait.
func (m *FileRWMutex) setBlocked(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue.setBlocked(w)
}

// finish ends the lead of w. If w is a reader that has the lock, the readers
// right behind it share it. Then the next waiter leads, if the state of the
// lock permits.
func (m *FileRWMutex) finish(w *waiter, joined bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue.remove(w, removed)
	if err == nil && !joined {
		m.wonLocked(w.mode)
	}
	if err == nil && w.mode == shared {
		for next := m.queue.first; next != nil && next.mode == shared; next = m.queue.first {
			m.readers++
			m.queue.grant(next)
		}
	}
	if m.held == heldExclusive {
		m.queue.refuseTries()
	}
	m.leadLocked()
}

func (m *FileRWMutex) unlock(mode mode) {
	m.mu.Lock()
	if m.held != mode.held() {
		m.mu.Unlock()
		panic("interlock: " + [...]string{"RUnlock of FileRWMutex not locked for reading", "Unlock of FileRWMutex not locked for writing"}[mode] + ": " + m.file.name)
	}
	held := m.trace.end(1)
	slow := !m.releaseLocked()
	m.mu.Unlock()
	if slow {
		m.releaseSlow()
	}
	m.trace.released(mode == shared, 1, held)
}

// release is unlock for a goroutine that was granted the lock but no longer
// wants it.
func (m *FileRWMutex) release() {
	m.mu.Lock()
	slow := !m.releaseLocked()
	m.mu.Unlock()
	if slow {
		m.releaseSlow()
	}
}

// releaseLocked ends one hold of this process. If it reports false, the caller
// must call releaseSlow, without the mutex.
func (m *FileRWMutex) releaseLocked() bool {
	if m.held == heldShared {
		if m.readers--; m.readers > 0 {
			return true
		}
	} else if w := m.queue.first; w != nil && w.mode == exclusive && m.file.handOnNow() {
		m.queue.grant(w)
		return true
	}
	if !m.file.unlockNow() {
		m.held = releasing
		return false
	}
	m.held = free
	m.leadLocked()
	return true
}

// releaseSlow unlocks the file where that can take long.
func (m *FileRWMutex) releaseSlow() {
	m.file.unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = free
	m.leadLocked()
}
