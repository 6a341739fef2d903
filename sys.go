package interlock

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"time"
)

// The system floor is sys.go and sys_*.go. Its type sysFile is an open
// file and what the system can do with it: open and identify the file, lock and
// unlock the whole file, and lock and unlock single bytes. The floor knows
// nothing about waiters, fairness, or where a file should be.

// A mode is how a lock is held or wanted.
type mode int8

const (
	shared mode = iota
	exclusive
)

// op returns the name of the operation that acquires a lock in mode m, for
// errors.
func (m mode) op() string {
	if m == shared {
		return "rlock"
	}
	return "lock"
}

// ErrLocked indicates that a lock is not available, because another goroutine
// or process holds it or waits for it. Errors of Try functions and methods
// match it.
var ErrLocked = errors.New("already locked")

// These errors never leave the package.
var (
	// errStale means that an open file is no longer the one at its path.
	// The caller closes it and opens the path again.
	errStale = errors.New("interlock: stale file")

	// errCannotWait means that the kernel cannot wait for a lock on behalf
	// of the caller. The caller polls instead.
	errCannotWait = errors.New("interlock: the kernel cannot wait")
)

// An identity tells one file from another, and one state of a file's names from
// another.
type identity struct {
	dev, ino uint64
	links    uint64 // number of names
	changed  int64  // ctime in ns
}

func (id identity) sameFile(other identity) bool {
	return id.dev == other.dev && id.ino == other.ino
}

// pathError adds the operation and the path to an error of the system, unless
// the error already names a path.
func pathError(op, path string, err error) error {
	if err == nil || errors.As(err, new(*fs.PathError)) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// errorAt makes err an error of op on path, even if err names another path.
func errorAt(op, path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

var epoch = time.Now()

// clock returns a monotonic time. It is cheaper than time.Now.
func clock() time.Duration { return time.Since(epoch) }

// never is a time so long ago that anything observed then no longer counts.
const never = -time.Hour

// release unlocks and closes the file. Closing alone would not unlock it while
// a child process has a copy of the descriptor, between fork and exec.
func (s *sysFile) release() {
	s.unlock()
	s.close()
}

// waitKernel waits for the lock of s in the kernel's queue. If the wait is
// abandoned, late runs when it has ended at last.
func (s *sysFile) waitKernel(ctx context.Context, m mode, late func()) (abandoned bool, err error) {
	if s.local {
		late = nil
	}
	return s.waitLock(ctx, m, late)
}

// A sideLock is a lock beside the one that callers know. It is a lock of one
// byte of a file or, where the system has no byte locks, of a whole file.
type sideLock struct {
	file *sysFile
	at   int64 // the byte, or wholeFile
}

const wholeFile = -1

func (l sideLock) try(m mode) error {
	if l.at == wholeFile {
		return l.file.tryLock(m)
	}
	return l.file.tryByte(l.at, m)
}

// wait is like try, but waits in the kernel's queue. Its results are those of
// [sysFile.waitLock].
func (l sideLock) wait(ctx context.Context, m mode, late func()) (abandoned bool, err error) {
	if l.at == wholeFile {
		return l.file.waitLock(ctx, m, late)
	}
	return l.file.waitByte(ctx, l.at, m, late)
}

func (l sideLock) unlock() error {
	if l.at == wholeFile {
		return l.file.unlock()
	}
	return l.file.unlockByte(l.at)
}

// share makes an exclusive lock shared. If another process acquires the lock in
// between, the error is ErrLocked.
func (l sideLock) share() error {
	err := l.try(shared)
	if locksStack {
		l.unlock() // with two locks, this releases the exclusive one
	}
	return err
}

// taken reports whether another open file has the lock in a mode that excludes
// m.
//
// Where the system cannot tell, taken tries to lock. Two such callers must not
// mistake each other for waiters. So taken tries again after random pauses, and
// reports true only if the refusals outlast such a try. A caller that is
// preempted during its try can still be mistaken for a waiter.
func (l sideLock) taken(m mode) bool {
	if l.at != wholeFile {
		if taken, known := l.file.byteTaken(l.at, m); known {
			return taken
		}
	}
	for pause := 5 * time.Microsecond; ; pause *= 2 {
		err := l.try(m)
		if err == nil {
			l.unlock()
		}
		if err != ErrLocked || pause > 100*time.Microsecond {
			return err == ErrLocked
		}
		time.Sleep(jitter(pause))
	}
}

// close unlocks and closes the lock's file.
func (l sideLock) close() {
	l.unlock() // as in release
	l.file.close()
}

// A pollInterval is the shortest and the longest pause between two tries.
type pollInterval struct{ min, max time.Duration }

// longestPoll depends on the system; see sys_*.go.
var defaultPollInterval = pollInterval{50 * time.Microsecond, longestPoll}

// poll calls try until it returns anything but ErrLocked, or ctx is done. It is
// for locks that the kernel cannot wait for.
//
// Each pause is about a sixteenth of the time waited so far. So a short wait
// ends soon, and a long one is cheap.
func poll(ctx context.Context, p pollInterval, try func() error) error {
	timer := time.NewTimer(p.min)
	defer timer.Stop()
	for pause := p.min; ; pause = p.next(pause) {
		if err := try(); err != ErrLocked {
			return err
		}
		timer.Reset(jitter(pause))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// next returns the pause that follows the given one. Pauses grow from any
// minimum, and do not overflow.
func (p pollInterval) next(pause time.Duration) time.Duration {
	if pause = max(pause, p.min); pause >= p.max-pause/16 {
		return p.max
	}
	return max(pause+pause/16, pause+1)
}

// jitter returns a random pause between half of the given one and all of it, so
// that waiters that began together do not try together.
func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }
