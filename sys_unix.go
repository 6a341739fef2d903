//go:build unix && !aix

package interlock

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/interlock-go/interlock/internal/paths"
	"golang.org/x/sys/unix"
)

// A handle is an open lock file, or an open gate.
type handle struct {
	fd       int
	dev, ino uint64
	gateAt   int64 // of a gate: at which byte, see gateFor
	writable bool  // NFSv4 wants that for an exclusive lock, and so does an exclusive gate
	local    bool  // on a file system that answers every call at once (see [handle.setLocal])
	marked   bool  // the ctime tells whether the file has been renamed
	nfs      bool  // on NFS, as far as known
}

// fileHandle is the handle of a file that the caller of the package opened.
func fileHandle(fd uintptr) handle { return handle{fd: int(fd)} }

const longestPoll = 20 * time.Millisecond

const openFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// openHandle opens the regular file at path, if possible for writing.
func openHandle(path string, create bool, perm fs.FileMode) (h handle, err error) {
	// Look before opening: to open a FIFO or a device is to do something to it.
	if err := checkFile(path); err != nil {
		return h, err
	}
	for range 1000 { // more than anybody who creates and removes the file by turns can keep up
		// Without O_CREAT first: in a sticky directory Linux refuses O_CREAT on a file of
		// somebody else's, even to open it (fs.protected_regular, proc(5)).
		h.fd, err = open(path, unix.O_RDWR, 0)
		if err != unix.ENOENT || !create {
			break
		}
		h.fd, err = open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, uint32(perm.Perm()))
		if err != unix.EEXIST {
			break
		}
	}
	switch err {
	case nil:
		h.writable = true
	case unix.EACCES, unix.EPERM, unix.EROFS, unix.ETXTBSY:
		fd, readErr := open(path, unix.O_RDONLY, 0)
		if readErr != nil {
			return h, err
		}
		h.fd = fd
	default:
		return h, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(h.fd, &st); err == nil {
		err = regular(&st)
	}
	if err != nil {
		h.close()
		return h, err
	}
	h.dev, h.ino = uint64(st.Dev), uint64(st.Ino)
	h.setLocal()
	return h, nil
}

// device tells file systems apart.
func (h handle) device() uint64 { return h.dev }

// removing: a file that is removed has no name.
func (h handle) removing() bool { return false }

// lockWhole does nothing: flock(2) is of the whole file.
func (h *handle) lockWhole() {}

// leased reports whether err, of opening a file, says that somebody has a lease on it (fcntl(2)), such as a file server. It has
// been told by now to give it up.
func leased(err error) bool { return err == unix.EWOULDBLOCK }

func open(path string, flags int, perm uint32) (fd int, err error) {
	err = uninterrupted(func() error {
		fd, err = unix.Open(path, flags|openFlags, perm)
		return err
	})
	return fd, err
}

// uninterrupted repeats call until no signal interrupts it.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// regular refuses what is not a regular file.
func regular(st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFLNK:
		return &notRegularError{"a symbolic link", unix.ELOOP}
	case unix.S_IFDIR:
		return &notRegularError{"a directory", unix.EISDIR}
	case unix.S_IFIFO:
		return &notRegularError{"a FIFO", unix.EINVAL}
	case unix.S_IFSOCK:
		return &notRegularError{"a socket", unix.EINVAL}
	}
	return &notRegularError{"a device", unix.EINVAL}
}

type notRegularError struct {
	what string
	err  syscall.Errno
}

func (e *notRegularError) Error() string { return "not a regular file but " + e.what }
func (e *notRegularError) Unwrap() error { return e.err }

// remembersAbsence reports whether the directory of h is cached, so that a file may have been made in
// it that is not seen yet.
func (h handle) remembersAbsence() bool { return h.nfs }

// unknownFile reports whether err says that an NFS server does not know the open file any more.
func unknownFile(err error) bool { return errors.Is(err, unix.ESTALE) }

// dup returns another descriptor of what h has opened, which has the same locks.
func (h handle) dup() (handle, error) {
	fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 0)
	h.fd = fd
	return h, err
}

// readAt and writeAt read and write what the file begins with.
func (h handle) readAt(buf []byte) (n int, err error) {
	err = uninterrupted(func() error {
		n, err = unix.Pread(h.fd, buf, 0)
		return err
	})
	return n, err
}

func (h handle) writeAt(data []byte) error {
	return uninterrupted(func() error {
		n, err := unix.Pwrite(h.fd, data, 0)
		if err == nil && n < len(data) {
			err = unix.ENOSPC
		}
		return err
	})
}

// checkFile returns an error if there is something at path that is not a regular file.
func checkFile(path string) error {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return nil
	}
	return regular(&st)
}

// close closes the handle, and with its last copy gives up the locks taken through it.
func (h handle) close() { unix.Close(h.fd) }

// absolute makes path independent of the working directory. It does not clean it: where
// a component is a symbolic link, "dir/../file" is not "file".
func absolute(path string) (string, error) {
	if path == "" {
		return "", unix.ENOENT
	}
	if filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := paths.Getwd()
	return wd + "/" + path, err
}

// pathIdentity tells which file is at path now.
func pathIdentity(path string) (identity, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if err == unix.ENOTDIR { // so no file can be there
		err = unix.ENOENT
	}
	return identify(&st), err
}

// fstat is fstat(2) of an open file, which a remote file system may have forgotten since its name
// was removed: errStale.
func fstat(fd int, st *unix.Stat_t) error {
	err := unix.Fstat(fd, st)
	if err == unix.ENOENT || err == unix.ESTALE {
		return errStale
	}
	return err
}

func identify(st *unix.Stat_t) identity {
	return identity{
		dev:     uint64(st.Dev),
		ino:     uint64(st.Ino),
		links:   uint64(st.Nlink),
		changed: st.Ctim.Nano(),
	}
}

// lockError says what an error of a lock call means to the caller.
func (h handle) lockError(err error) error {
	switch err {
	case nil:
		return nil
	case unix.EACCES: // of SMB, that it is held; elsewhere a security module may deny it
		if h.denies() {
			return err
		}
		return ErrLocked
	case unix.EWOULDBLOCK, unix.EDEADLK: // the latter: NFS and Solaris servers
		return ErrLocked
	case unix.ENOLCK: // NFS without a lock daemon; ENOSYS and EOPNOTSUPP match by themselves
		return &unsupportedError{err}
	}
	return err
}

type unsupportedError struct{ err error }

func (e *unsupportedError) Error() string        { return "cannot be locked: " + e.err.Error() }
func (e *unsupportedError) Unwrap() error        { return e.err }
func (e *unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }
