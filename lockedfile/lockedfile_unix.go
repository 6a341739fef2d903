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
	// Before the mode: of a file with an access control list, its group bits are not those of the group.
	if err := inheritACL(f, from); err != nil {
		return err
	}
	if err := f.Chmod(old.Mode()); err != nil {
		return err
	}
	// The kernel clears a set-group-ID bit that the caller may not set, and says nothing.
	if info, err = f.Stat(); err == nil && (info.Mode() != old.Mode() || owner(info) != owner(old)) {
		err = errInPlace
	}
	return err
}

// irreplaceable reports whether err, of making a new file or of putting it in its place, means that the
// file at that place might be written nevertheless.
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

// closeCopy closes a copy of the descriptor of f.
func closeCopy(f *os.File) error {
	if fd := duplicate(f); fd >= 0 {
		return syscall.Close(fd)
	}
	return nil // the error of closing f itself is returned, too
}

// named gives f, which was opened by the name of a temporary file, the one that it has now, for its Name and its errors.
// If that is not possible, f stays as it is.
func named(f *os.File, name string) *os.File {
	if f.Name() == name {
		return f
	}
	fd := duplicate(f) // it has the same lock
	if fd < 0 {
		return f
	}
	f.Close()
	return os.NewFile(uintptr(fd), name)
}

// duplicate returns a copy of the descriptor of f, or -1. Not all systems have F_DUPFD_CLOEXEC.
func duplicate(f *os.File) int {
	fd := -1
	if conn, err := f.SyscallConn(); err == nil {
		conn.Control(func(own uintptr) {
			syscall.ForkLock.RLock() // no child gets it
			defer syscall.ForkLock.RUnlock()
			if copied, err := syscall.Dup(int(own)); err == nil {
				syscall.CloseOnExec(copied)
				fd = copied
			}
		})
	}
	return fd
}

// mayFollow returns an error for a symbolic link of somebody else's in a sticky directory that everybody may write to, but for
// one of the directory's owner. So does Linux when it follows one (fs.protected_symlinks, proc(5)). The link has
// been read since it was looked at before.
func mayFollow(link string, before fs.FileInfo) error {
	info, err := os.Lstat(link)
	if before == nil || errors.Is(err, fs.ErrNotExist) || err == nil && (info.Mode()&fs.ModeSymlink == 0 || !os.SameFile(info, before)) {
		return errAgain
	}
	if err != nil {
		return err
	}
	path, _ := filepath.Split(link)
	dir, err := os.Stat(path + ".")
	if err != nil {
		return err
	}
	owner := func(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
	if dir.Mode()&fs.ModeSticky != 0 && dir.Mode()&0o002 != 0 && owner(info) != os.Geteuid() && owner(info) != owner(dir) {
		return syscall.EACCES
	}
	return nil
}

// syncDir waits until the disk has the entry of path, where f is, in its directory.
func syncDir(f *os.File, path string) error {
	dir, _ := filepath.Split(path)
	d, err := os.Open(dir + ".")
	if errors.Is(err, fs.ErrPermission) { // one that can be searched but not read
		return syncFileSystem(f)
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
