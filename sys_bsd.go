//go:build unix && !aix && (!linux || interlock_bsd)

package interlock

import "context"

// This file is for the Unix systems other than Linux that have flock(2). On
// none of them can another goroutine end a wait for a lock, so waiters poll.
// The file has not been run on these systems. It has been run on Linux, with
// the build tag interlock_bsd (make test).

// classify does nothing: no file system is known to be local here.
func (f *sysFile) classify() {}

func (f *sysFile) tryLockUnchanged(mode, int64) bool { return false }
func (f *sysFile) tryLockNamed(mode, []byte) bool    { return false }
func (f *sysFile) isNamed([]byte) bool               { return false }
func (f *sysFile) unlockRaw() bool                   { return false }

func (f *sysFile) waitLock(context.Context, mode, func()) (abandoned bool, err error) {
	return false, errCannotWait
}

// denies reports whether EACCES from a lock call cannot mean that the lock is
// held.
func (f *sysFile) denies() bool { return false }

// These systems have no byte locks that belong to an open file. Locks of whole
// files take their place.
const (
	byteLocks  = false
	farByte    = 1
	locksStack = false
)

func (f *sysFile) bytesApart() bool                          { return false }
func (f *sysFile) tryByte(int64, mode) error                 { return errCannotWait }
func (f *sysFile) unlockByte(int64) error                    { return errCannotWait }
func (f *sysFile) byteTaken(int64, mode) (taken, known bool) { return false, false }

func (f *sysFile) waitByte(context.Context, int64, mode, func()) (abandoned bool, err error) {
	return false, errCannotWait
}
