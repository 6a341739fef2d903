//go:build unix

package pidfile

import (
	"os"
	"syscall"

	"github.com/interlock-go/interlock/internal/opened"
)

const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// gone reports whether there is no process with this ID.
func gone(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH }

func passing(error) bool { return false }

// removeAndRelease removes f before it is unlocked: afterwards it may be the file of another.
func removeAndRelease(f *os.File, path string) error {
	err := remove(f, path)
	if releaseErr := opened.Release(f); err == nil {
		err = releaseErr
	}
	return err
}

// remove removes f if it is still the file at path.
func remove(f *os.File, path string) error {
	current, err := opened.IsAt(f, path, os.Lstat)
	if current {
		err = os.Remove(path)
	}
	return err
}
