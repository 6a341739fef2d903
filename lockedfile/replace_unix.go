//go:build unix

package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"syscall"
)

const canReplace = true

// inode returns a string that no other file of the same file system has at the
// same time.
func inode(info fs.FileInfo) string {
	return strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Ino), 10)
}

// inherit gives f the owner, group, mode and access control list of the file
// that it is to replace.
func inherit(f, from *os.File, old fs.FileInfo) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if uid(info) != uid(old) || gid(info) != gid(old) {
		if err := f.Chown(uid(old), gid(old)); err != nil {
			return err
		}
	}
	// Before the mode: with an access control list, the group bits of the
	// mode are a mask, and without the list they would grant access to the
	// group.
	if err := inheritACL(f, from); err != nil {
		return err
	}
	if err := f.Chmod(old.Mode()); err != nil {
		return err
	}
	// Look again. The kernel silently clears a set-group-ID bit that the
	// caller may not set.
	info, err = f.Stat()
	if err != nil {
		return err
	}
	if info.Mode() != old.Mode() || uid(info) != uid(old) || gid(info) != gid(old) {
		return errInPlace
	}
	return nil
}

func uid(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
func gid(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }

// isInPlace reports whether err, from creating a new file or moving it to its
// place, is no reason against a change in place.
func isInPlace(err error) bool {
	var errno syscall.Errno
	return err == errInPlace || errors.As(err, &errno) && slices.Contains([]syscall.Errno{
		syscall.EACCES, syscall.EPERM, syscall.EROFS, // of the directory or the new file
		syscall.EBUSY, syscall.EXDEV, // The file is a mount point.
		syscall.ENAMETOOLONG,           // with the suffix of the temporary file
		syscall.EINVAL,                 // The owner does not exist in this user namespace.
		syscall.EMLINK, syscall.ENOSYS, // no hard links
		syscall.ENOTSUP, syscall.EOPNOTSUPP,
	}, errno)
}
