package interlock

import (
	"context"
	"errors"
	"io/fs"
	"reflect"
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
// signal SIGURG: in a program that ignores it, by [os/signal.Ignore] or otherwise, the runtime's handler is put
// back, which every Go program has by default.
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
//     noticed within 10ms;
//   - a process that may not look at the path any more, since it has given up rights, stays with the
//     old file, and does not know.
//
// On a file system that is not known to be local (see the package comment), a second file with
// the path of the lock file and ".gate" appended is created when somebody has to wait, on NFS as soon
// as somebody locks, and remains. Whoever cannot open it can starve and be starved.
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
	path  string
	abs   string // the path to open
	opts  options
	trace *tracer // or nil

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
	device  uint64        // which file system that is
	checked time.Duration // when file was last seen at its path and with nobody foreign at the gate
	taken   time.Duration // when the kernel gave us the lock
}

// leasePatience is how long a constructor waits for who has a lease on the file.
const leasePatience = 500 * time.Millisecond

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
	f, err := o.openLock(abs)
	for begin := time.Now(); leased(err) && time.Since(begin) < leasePatience; {
		time.Sleep(time.Millisecond)
		f, err = o.openLock(abs)
	}
	if err != nil {
		return fail(err)
	}
	m := &FileRWMutex{path: path, abs: abs, opts: o, trace: newTracer(o.trace, path)}
	m.adopt(f)
	return m, nil
}

// Path returns the path that the FileRWMutex was made with.
func (m *FileRWMutex) Path() string { return m.path }

// Lock locks m for writing, and waits until it can.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRWMutex) Lock() {
	if err := m.lock(context.Background(), exclusive, true); err != nil {
		m.cannot(exclusive, err)
	}
}

// RLock locks m for reading, and waits until it can.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRWMutex) RLock() {
	if err := m.lock(context.Background(), shared, true); err != nil {
		m.cannot(shared, err)
	}
}

// cannot panics since a method without a context got an error.
func (m *FileRWMutex) cannot(mode hold, err error) {
	panic(m.wrap(context.Background(), mode, err))
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
	err := m.lock(context.Background(), mode, false)
	if err != nil && err != ErrLocked {
		m.cannot(mode, err)
	}
	return err == nil
}

// answersAtOnce reports whether trying to lock m never waits, not even for a file system.
func (m *FileRWMutex) answersAtOnce() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.local
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

func (m *FileRWMutex) wrap(ctx context.Context, mode hold, err error) error {
	return pathError(ctx, mode.op(), m.path, err)
}

// pathError names the operation and the path in an error of the system.
func pathError(ctx context.Context, op, path string, err error) error {
	if err == nil || ended(ctx, err) {
		return err
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// ended reports whether err, which is not nil, is ctx.Err(). That can be of a type of the caller's whose values cannot
// be compared: then nobody else's errors are of that type.
func ended(ctx context.Context, err error) bool {
	end := ctx.Err()
	if end != nil && !reflect.ValueOf(end).Comparable() {
		return reflect.TypeOf(err) == reflect.TypeOf(end)
	}
	return err == end
}

// Unlock unlocks m for writing. It panics if m is not locked for writing.
func (m *FileRWMutex) Unlock() {
	m.mu.Lock()
	if m.held != exclusive {
		m.mu.Unlock()
		panic("interlock: Unlock of FileRWMutex not locked for writing: " + m.path)
	}
	held := m.trace.end(1)
	raceRelease(m.file.handle)
	if m.first == nil && m.local && !m.file.gated && m.file.unlockLocal() { // the shortest way, as in lock
		m.held = free
	} else {
		m.unlock()
	}
	m.mu.Unlock()
	m.trace.released(false, 1, held)
}

// RUnlock undoes a single RLock call; it does not affect other readers. It panics
// if m is not locked for reading.
func (m *FileRWMutex) RUnlock() {
	m.mu.Lock()
	if m.held != shared {
		m.mu.Unlock()
		panic("interlock: RUnlock of FileRWMutex not locked for reading: " + m.path)
	}
	held := m.trace.end(1)
	raceRelease(m.file.handle)
	if m.readers == 1 && m.first == nil && m.local && !m.file.gated && m.file.unlockLocal() {
		m.readers, m.held = 0, free
	} else {
		m.rUnlock()
	}
	m.mu.Unlock()
	m.trace.released(true, 1, held)
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
	if m.trace != nil {
		return m.lockTraced(ctx, mode, wait)
	}
	m.mu.Lock()
	if f := m.file; f != nil && !f.dead && m.local && m.held == free && m.first == nil {
		// What attempt does too, by the shortest way: with the calls nested as deeply as
		// there, a tenth is added to it all.
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

func (m *FileRWMutex) lockTraced(ctx context.Context, mode hold, wait bool) error {
	return m.trace.acquire(mode == shared, 1, wait, func(wait bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.lockSlow(ctx, mode, wait)
	})
}
