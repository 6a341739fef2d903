//go:build unix

package pidfile

import (
	"os"
	"syscall"

	"github.com/interlock-go/interlock/internal/atpath"
)

// noFollow is a flag to open a path without following a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// removeAndRelease removes f and then unlocks it. After that, the file at path
// could be the one of another process.
func removeAndRelease(f *os.File, path string) error {
	err := remove(f, path)
	if releaseErr := release(f); err == nil {
		err = releaseErr
	}
	return err
}

// remove removes f if it is still the file at path.
func remove(f *os.File, path string) error {
	current, err := atpath.IsAt(f, path, os.Lstat)
	if current {
		err = os.Remove(path)
	}
	return err
}
