//go:build unix

package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// closeCopy closes a copy of the descriptor of f.
func closeCopy(f *os.File) error {
	if fd := duplicate(f); fd >= 0 {
		return syscall.Close(fd)
	}
	return nil // The caller closes f itself later, and checks the error of that, too.
}

// syncDir waits until the disk has the directory entry of f, which is at path.
func syncDir(f *os.File, path string) error {
	dir, _ := filepath.Split(path)
	d, err := os.Open(dir + ".")
	if errors.Is(err, fs.ErrPermission) {
		// The directory may be writable and yet not readable.
		return syncFileSystem(f)
	}
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EBADF) || errors.Is(err, errors.ErrUnsupported) {
		return nil // The file system cannot sync directories.
	}
	return err
}
