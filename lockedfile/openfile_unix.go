//go:build unix

package lockedfile

import (
	"os"
	"syscall"
)

// appendFlags are the flags of a file that [Append] adds to.
const appendFlags = os.O_WRONLY | os.O_APPEND

// lockable returns flags like flag, with which an open file can be locked.
func lockable(flag int) int { return flag }

// renamed returns f with another name, for its Name method and its errors. If
// that is not possible, it returns f as it is. The lock stays.
func renamed(f *os.File, name string) *os.File {
	if f.Name() == name {
		return f
	}
	fd := duplicate(f) // shares the open file description, and so the lock
	if fd < 0 {
		return f
	}
	f.Close()
	return os.NewFile(uintptr(fd), name)
}

// duplicate returns a copy of the descriptor of f, or -1. It does not use
// F_DUPFD_CLOEXEC, which not every Unix system has.
func duplicate(f *os.File) int {
	fd := -1
	if conn, err := f.SyscallConn(); err == nil {
		conn.Control(func(own uintptr) {
			syscall.ForkLock.RLock() // No child process inherits the copy.
			defer syscall.ForkLock.RUnlock()
			if copied, err := syscall.Dup(int(own)); err == nil {
				syscall.CloseOnExec(copied)
				fd = copied
			}
		})
	}
	return fd
}
