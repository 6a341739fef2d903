package atpath

import (
	"errors"
	"io/fs"
	"os"
)

// IsAt reports whether f is the file at path. The argument stat, [os.Stat] or
// [os.Lstat], decides whether a symbolic link at path is followed.
func IsAt(f *os.File, path string, stat func(path string) (fs.FileInfo, error)) (bool, error) {
	own, err := f.Stat()
	if Forgotten(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found, err := stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(own, found), err
}

// Forgotten reports whether err, from a call on an open file, means that a
// remote file system no longer knows the file, because its last name was
// removed.
func Forgotten(err error) bool { return errors.Is(err, fs.ErrNotExist) || isStale(err) }

// Release unlocks f with unlock, and closes it. To close f is not enough: a
// child process between fork and exec has a copy of the descriptor, and with it
// the lock.
func Release(f *os.File, unlock func(*os.File) error) error {
	err := unlock(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
