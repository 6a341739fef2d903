//go:build unix

package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

const canReplace = true

// openFlags let the opening of a FIFO that has just taken the place of the file return.
const openFlags = syscall.O_NONBLOCK

// appendFlags are those of a file that [Append] adds to.
const appendFlags = os.O_WRONLY | os.O_APPEND

// lockable returns the flags with which a file can be opened and then locked.
func lockable(flag int) int { return flag }

// inode tells old from all other files that there are.
func inode(old fs.FileInfo) string {
	return strconv.FormatUint(uint64(old.Sys().(*syscall.Stat_t).Ino), 10)
}

// inherit gives f owner, group, mode and access control list of the file that it is to replace.
func inherit(f, from *os.File, old fs.FileInfo) error {
	owner := func(info fs.FileInfo) [2]int {
		st := info.Sys().(*syscall.Stat_t)
		return [2]int{int(st.Uid), int(st.Gid)}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if want := owner(old); owner(info) != want {
		if err := f.Chown(want[0], want[1]); err != nil {
			return err
		}
	}
	if err := f.Chmod(old.Mode()); err != nil {
		return err
	}
	// The kernel clears a set-group-ID bit that the caller may not set, and says nothing.
	if info, err = f.Stat(); err == nil && (info.Mode() != old.Mode() || owner(info) != owner(old)) {
		err = errInPlace
	}
	if err != nil {
		return err
	}
	return inheritACL(f, from)
}

// irreplaceable reports whether err means that the file at a path cannot be replaced, or not be
// linked to, but might be written.
func irreplaceable(err error) bool {
	var errno syscall.Errno
	return err == errInPlace || errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.EACCES, syscall.EPERM, syscall.EROFS, // the directory or a new file, not the file
		syscall.EBUSY, syscall.EXDEV, // a mount point
		syscall.ENAMETOOLONG,           // with our suffix
		syscall.EINVAL,                 // an owner that this user namespace does not have
		syscall.EMLINK, syscall.ENOSYS, // no hard links
		syscall.ENOTSUP, syscall.EOPNOTSUPP,
	}, errno)
}

// syncDir waits until the disk has the entry of path in its directory.
func syncDir(path string) error {
	dir, _ := filepath.Split(path)
	d, err := os.Open(dir + ".")
	if errors.Is(err, fs.ErrPermission) { // one that can be searched but not read
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EBADF) || errors.Is(err, errors.ErrUnsupported) {
		return nil // the file system has no such thing
	}
	return err
}
