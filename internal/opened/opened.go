// Package opened is for open files that are locked by what they are, and found by where they are.
package opened

import (
	"errors"
	"io/fs"
	"os"

	"github.com/interlock-go/interlock"
)

// IsAt reports whether f is the file at path, by [os.Stat] or [os.Lstat].
func IsAt(f *os.File, path string, stat func(path string) (fs.FileInfo, error)) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	at, err := stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(info, at), err
}

// Release unlocks f and closes it. To close it alone would not do while a child process between
// fork and exec has a copy of the descriptor.
func Release(f *os.File) error {
	err := interlock.Unlock(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
