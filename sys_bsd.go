//go:build unix && !aix && (!linux || interlock_bsd)

package interlock

import (
	"context"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// The Unix systems that have flock(2), and no way to wait for it that can be ended. They have not been run so far, only
// compiled for; but what is in this file has, on Linux, with the build tag interlock_bsd (make test).

// setLocal knows no file system here.
func (h *handle) setLocal() {}

func (*lockFile) acquireKnown(hold, time.Duration) bool { return false }
func (*lockFile) isNamed() bool                         { return false }
func (h handle) unlockLocal() bool                      { return false }

func (h handle) identity() (identity, error) {
	var st unix.Stat_t
	err := fstat(h.fd, &st)
	return identify(&st), err
}

// tryLock takes the flock(2) without waiting. ErrLocked means that it is held.
func (h handle) tryLock(m hold) error {
	how := unix.LOCK_EX
	if m == shared {
		how = unix.LOCK_SH
	}
	return h.lockError(uninterrupted(func() error { return unix.Flock(h.fd, how|unix.LOCK_NB) }))
}

func (h handle) unlock() error {
	return uninterrupted(func() error { return unix.Flock(h.fd, unix.LOCK_UN) })
}

func (h handle) waitLock(context.Context, hold, func()) error { return errCannotWait }

// denies reports whether EACCES of a lock call cannot mean that somebody has the lock.
func (h handle) denies() bool { return false }

// The gate is a file of its own, and standing at it is its flock(2).
func (h handle) gateInFile() bool { return false }

// gateFor makes h the gate for lock. Who waits for a lock file that was replaced does stop who
// uses the new one.
func (h *handle) gateFor(lock handle) { h.gateAt = 0 }

func (h handle) tryGate(m hold) error                         { return h.tryLock(m) }
func (h handle) waitGate(context.Context, hold, func()) error { return errCannotWait }
func (h handle) leaveGate() error                             { return h.unlock() }

// roles returns handles for the three locks of a semaphore's gate file h, see semGate: files
// of their own, but for use.
func (h handle) roles(path string, perm fs.FileMode) (use, waiting, collect handle, err error) {
	waiting, err = openHandle(path+".waiting", true, perm)
	if err != nil {
		return h, waiting, collect, err
	}
	collect, err = openHandle(path+".collect", true, perm)
	if err != nil {
		waiting.close()
	}
	return h, waiting, collect, err
}

// closeRole gives up a lock of a semaphore's gate, but for use.
func (h handle) closeRole() {
	h.unlock()
	h.close()
}

// shareGate turns an exclusive gate lock to a shared one. Others may have it in between: ErrLocked.
func (h handle) shareGate() error { return h.tryLock(shared) }

// gateTaken reports whether somebody else stands at the gate in a mode that excludes m.
func (h handle) gateTaken(m hold) bool { return h.askGate(m) }
