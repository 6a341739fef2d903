//go:build unix

package pidfile

import (
	"errors"
	"syscall"
)

// isGone reports whether no process has this ID.
func isGone(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }

// isNoLocksLeft reports whether err says that there are no more locks, at least
// for this process.
func isNoLocksLeft(err error) bool { return errors.Is(err, syscall.ENOLCK) }
