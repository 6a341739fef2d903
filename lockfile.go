package interlock

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/raceedge"
)

// A lockFile is one lock file as this process sees it. It owns the path, the
// descriptor, the gate (lockfile_gate.go), and the check that the open file is
// still the one at the path (lockfile_path.go). It also hides the difference
// between file systems that answer at once and file systems that may not
// (lockfile_remote.go).
//
// Only one goroutine at a time may use a lockFile, with two exceptions. The
// last reader may call unlock while the process's next waiter is in contended,
// announce or withdraw, which leave the lock of the whole file alone. A release
// of semaphore units may call takenNow on the gate file while the leader uses
// it.
//
// Methods whose names end in Now make only calls that return at once, and may
// be called with a mutex held. (They may look at the path, which takes longer
// only if one of its directories is on a remote file system.) They report
// failure if something is not possible, or would take longer. All other methods
// may take long. No method calls back to its user.
//
// An error is an [*fs.PathError], except ErrLocked, ctx.Err(), and those that
// the comment of a method names.
//
// The file passes through these states. The parentheses show whether file is
// nil, and whether the lock is held.
//
//	closed (nil)          → open      by open
//	open   (set, free)    → locked    by tryNow, try, wait
//	locked (set, held)    → open      by unlockNow, unlock, unlockUntil
//	locked                → dead      by unlock or tryNow, if the system refuses
//	                                  to unlock it
//	dead   (set, closed)  → closed    by repair
//	open, locked          → closed    by close; or by abandon, which leaves the
//	                                  descriptor to the call that goes on
//
// The gate is free for this process, or announced: by announce, until withdraw.
// If the gate is held through file and withdraw cannot release it, stuck is set
// until the file is closed.
type lockFile struct {
	name string // as the caller named it, for errors
	path string // absolute
	opts options
	fair bool // waiters use the gate; false for the slots of a semaphore

	file           *sysFile // nil if the path must be opened (again)
	device         uint64   // the file system of the last file
	local          bool     // the file system answers at once
	byteLocksLocal bool     // the file system tells at once about byte locks, even if not local

	// The file was last seen at the path at the time knownAt, with the
	// ctime known. If the ctime proves nothing, knownAt is the constant
	// never.
	known   int64
	knownAt time.Duration
	pathZ   []byte // path and a NUL byte if only a look at the path tells; else nil

	deletedSince time.Duration // since when the file at the path has had no links; or never

	clear    [2]time.Duration // by mode: when the gate was last seen free for that mode
	lockedAt time.Duration    // when the kernel granted the lock

	gate      sideLock // its file is nil until it is needed
	announced bool     // this process holds the gate, or may hold it
	ownGate   bool     // the gate is held through file, because no other descriptor could be opened

	// mu keeps unlock from closing the descriptor of file while another
	// goroutine announces itself through it.
	mu    sync.Mutex
	dead  bool        // file was closed because it could not be unlocked
	stuck atomic.Bool // the gate may still be locked through file, until file is closed
}

const (
	// checkInterval is how long a process relies on having seen that no
	// other process waits. Checking costs half as much as locking and
	// unlocking.
	checkInterval = 50 * time.Microsecond

	// handOnTime is how long the goroutines of a process may hand on a lock
	// among themselves. They stop earlier if another process waits at the
	// gate. So the limit protects programs that do not use the gate.
	handOnTime = time.Millisecond
)

// newLockFile returns a lockFile that is not open yet. name is for errors.
func newLockFile(name, path string, o options, fair bool) *lockFile {
	return &lockFile{name: name, path: path, opts: o, fair: fair, deletedSince: never}
}

// tryNow locks the file if it can do so at once, and reports whether it did.
func (f *lockFile) tryNow(m mode) bool {
	s := f.file
	if s == nil || !s.local || f.dead {
		return false
	}
	now := clock()
	ask := f.fair && now-f.clear[m] >= checkInterval
	if ask && f.gateLock().taken(m) {
		return false
	}
	ok := false
	switch {
	case f.pathZ != nil:
		ok = s.tryLockNamed(m, f.pathZ)
	case now-f.knownAt < pathCheckInterval:
		ok = s.tryLockUnchanged(m, f.known)
	case s.tryLock(m) == nil: // once every pathCheckInterval
		if ok = f.look(s) == nil; !ok && s.unlock() != nil {
			f.kill()
		}
	}
	if !ok {
		return false
	}
	if ask {
		f.clear[m] = now
	}
	f.won(now)
	return true
}

// won records that the kernel granted the lock.
func (f *lockFile) won(now time.Duration) {
	f.lockedAt = now
	if raceedge.Enabled {
		raceedge.Acquire(f.file.number())
	}
}

// try locks the file. ErrLocked means that another process holds the lock,
// waits for it at the gate, or has a lease on the file. try does not wait for
// any of these, but it may wait for the file system.
func (f *lockFile) try(ctx context.Context, m mode) error {
	asked := never
	err := f.lock(ctx, m, func(s *sysFile) error {
		now := clock()
		ask := f.fair && !f.announced && now-f.clear[m] >= checkInterval
		err := f.call(ctx, func() error {
			if ask && f.gateTaken(s, m) {
				return ErrLocked
			}
			return s.tryLock(m)
		})
		if err != nil && ctx.Err() != nil {
			f.undo()
		}
		if ask {
			asked = now
		}
		return err
	})
	if err == nil && asked != never {
		f.clear[m] = asked
	}
	return err
}

// wait locks the file. It blocks until it succeeds or ctx is done. When it
// returns, this process has left the gate.
func (f *lockFile) wait(ctx context.Context, m mode) error {
	lock := func() error {
		return f.lock(ctx, m, func(s *sysFile) error { return f.waitOpen(ctx, s, m) })
	}
	err := lock()
	if err == ErrLocked { // another process has a lease on the file
		err = poll(ctx, f.opts.poll, lock)
	}
	f.withdraw()
	if err != nil {
		f.repair()
	}
	return err
}

// waitOpen waits at the gate and then for the lock of s, the open file. It
// never returns ErrLocked.
func (f *lockFile) waitOpen(ctx context.Context, s *sysFile, m mode) error {
	if err := f.announce(ctx, m); err != nil {
		return err
	}
	try := func() error { return f.call(ctx, func() error { return s.tryLock(m) }) }
	err := try()
	if err == ErrLocked {
		err = f.waitKernel(ctx, m)
	}
	if err == errCannotWait {
		err = poll(ctx, f.opts.poll, func() error {
			err := try()
			if err == ErrLocked {
				look := f.call(ctx, func() error { return f.look(s) })
				if look == errStale || f.file != s { // or the call was abandoned
					err = look
				}
			}
			return err
		})
	}
	if err != nil && ctx.Err() != nil {
		f.undo()
	}
	return err
}

// lock opens the file and calls acquire, which locks it. It repeats both until
// the locked file is the one at the path.
func (f *lockFile) lock(ctx context.Context, m mode, acquire func(*sysFile) error) error {
	var lockErr error
	_, err := atpath.Lock(ctx, atpath.Steps[*sysFile]{
		Open: func() (*sysFile, error) { return f.open(ctx) },
		Lock: func(s *sysFile) error {
			lockErr = acquire(s)
			return lockErr
		},
		Current: func(s *sysFile) (bool, error) {
			if f.file != s || lockErr != nil && ctx.Err() != nil {
				return true, nil // the call was given up; do not repeat it
			}
			if lockErr == errStale {
				return false, nil
			}
			err := f.call(ctx, func() error { return f.look(s) })
			// A removed file that still has its name keeps others
			// from creating a new one.
			current := err == nil && !(lockErr == nil && s.removing())
			if err == errStale {
				err = nil
			}
			return current, err
		},
		Discard: func(*sysFile) { f.close() },
	})
	switch {
	case err == nil:
		f.won(clock())
		return nil
	case err == ErrLocked, leased(err):
		return ErrLocked
	}
	return f.fail(ctx, m.op(), err)
}

// fail returns ctx.Err() if ctx is done, and otherwise err as an error of op.
func (f *lockFile) fail(ctx context.Context, op string, err error) error {
	if end := ctx.Err(); end != nil {
		return end
	}
	return pathError(op, f.name, err)
}

// contendedNow reports whether this process, which holds the lock, must not
// share it with another of its goroutines in mode m, or hand it on. That is so
// if another process waits that m must not overtake, or if another file is at
// the path. It reports true if it cannot tell at once.
func (f *lockFile) contendedNow(m mode) bool { return f.contendedAt(clock(), m) }

// contendedAt is contendedNow at the time now.
func (f *lockFile) contendedAt(now time.Duration, m mode) bool {
	if now-f.clear[m] < checkInterval {
		return false
	}
	if !f.file.local || f.look(f.file) != nil || f.gateLock().taken(m) {
		return true
	}
	f.clear[m] = now
	return false
}

// contended is like contendedNow, but its error says why: ErrLocked if another
// process waits, errStale if the path has another file, ctx.Err(), or an error
// of the system.
func (f *lockFile) contended(ctx context.Context, m mode) error {
	s, now := f.file, clock()
	ask := f.fair && !f.announced && now-f.clear[m] >= checkInterval
	err := f.ask(ctx, func() error {
		err := f.look(s)
		if err == nil && ask && f.gateTaken(s, m) {
			err = ErrLocked
		}
		return err
	})
	switch {
	case err == nil && ask:
		f.clear[m] = now
	case err != nil && err != ErrLocked && err != errStale:
		err = f.fail(ctx, m.op(), err)
	}
	return err
}

// handOnNow reports whether the lock, which this process holds exclusively, may
// go to another of its goroutines without being unlocked. That gives several
// times the throughput, at the expense of waiters in other processes.
func (f *lockFile) handOnNow() bool {
	now := clock()
	return f.file.local && now-f.lockedAt <= handOnTime && !f.contendedAt(now, exclusive)
}

// unlockNow unlocks the file if it can do so at once, and reports whether it
// did.
func (f *lockFile) unlockNow() bool {
	if !f.file.local || f.stuck.Load() {
		return false
	}
	if raceedge.Enabled {
		raceedge.Release(f.file.number())
	}
	return f.file.unlockRaw()
}

// unlock unlocks the file.
func (f *lockFile) unlock() {
	if raceedge.Enabled {
		raceedge.Release(f.file.number())
	}
	if f.file.unlock() == nil && !f.stuck.Load() {
		return
	}
	f.kill()
}

// kill closes the file, which unlocks it.
func (f *lockFile) kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.file.close()
	f.dead = true
}

// repair closes a file that could not be unlocked. It must not be called while
// this process holds the lock.
func (f *lockFile) repair() {
	if f.stuck.Load() || f.dead {
		f.close()
	}
}

// close closes the file, which releases the lock and leaves the gate.
func (f *lockFile) close() { f.closeAfter(func() {}) }

// closeAfter makes a last call on the file, and then closes it.
func (f *lockFile) closeAfter(call func()) {
	if f.file == nil {
		return
	}
	s, gate, dead, ownGate := f.file, f.gate, f.dead, f.ownGate
	f.forget()
	f.briefly(s, func() {
		if gate.file != nil {
			gate.close()
		}
		if dead {
			return
		}
		call()
		if ownGate {
			ownGateOf(s).unlock()
		}
		s.release()
	})
}

// forget drops the file without closing it. Another function closes it.
func (f *lockFile) forget() {
	f.file, f.gate, f.announced, f.ownGate, f.dead = nil, sideLock{}, false, false, false
	f.stuck.Store(false)
}
