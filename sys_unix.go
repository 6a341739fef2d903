//go:build unix && !aix

package interlock

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
	"golang.org/x/sys/unix"
)

// A sysFile is an open file.
type sysFile struct {
	fd       int
	dev, ino uint64 // zero for a file that the caller of the package opened
	writable bool   // required for an exclusive lock by NFSv4, and by byte locks
	local    bool   // every call returns at once; see classify
	knownFS  bool   // the file system is known to be local, even if this file is not
	marked   bool   // the ctime tells whether the file was renamed
	nfs      bool   // on NFS, as far as known
}

// callerFile returns a sysFile for a file that the caller of the package
// opened.
func callerFile(fd uintptr) *sysFile { return &sysFile{fd: int(fd)} }

const longestPoll = 20 * time.Millisecond

const openFlags = unix.O_NOFOLLOW | unix.O_CLOEXEC | unix.O_NONBLOCK

// openFile opens the regular file at path, for writing if possible. It creates
// the file if create is set. The error is [atpath.ErrAgain] if another kind of
// file takes the place of the file at the same time.
func openFile(path string, create bool, perm fs.FileMode) (*sysFile, error) {
	// Look first: opening a FIFO or a device has effects.
	if err := checkFile(path); err != nil {
		return nil, err
	}
	f := new(sysFile)
	var err error
	for range 1000 { // processes that create and remove the file cannot interfere that often
		// Try without O_CREAT first: in a sticky directory, Linux
		// refuses O_CREAT on a file of another user, even if the file
		// exists (fs.protected_regular, proc(5)).
		f.fd, err = open(path, unix.O_RDWR, 0)
		if err != unix.ENOENT || !create {
			break
		}
		f.fd, err = open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, uint32(perm.Perm()))
		if err != unix.EEXIST {
			break
		}
	}
	switch err {
	case nil:
		f.writable = true
	case unix.EACCES, unix.EPERM, unix.EROFS, unix.ETXTBSY:
		fd, readErr := open(path, unix.O_RDONLY, 0)
		if readErr != nil {
			return nil, err
		}
		f.fd = fd
	default:
		return nil, err
	}
	var st unix.Stat_t
	err = uninterrupted(func() error { return unix.Fstat(f.fd, &st) })
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = atpath.ErrAgain // not the file that checkFile saw
	}
	if err != nil {
		f.close()
		return nil, err
	}
	f.dev, f.ino = uint64(st.Dev), uint64(st.Ino)
	f.classify()
	return f, nil
}

// device returns a number that tells file systems apart.
func (f *sysFile) device() uint64 { return f.dev }

// descriptor returns the file descriptor.
func (f *sysFile) descriptor() int { return f.fd }

// isFile reports whether id is the identity that the file had when it was
// opened.
func (f *sysFile) isFile(id identity) bool { return id.dev == f.dev && id.ino == f.ino }

// removing reports whether the file has been removed but keeps its name until
// it is closed. On Unix, a removed file has no name.
func (f *sysFile) removing() bool { return false }

// lockWhole does nothing: flock(2) locks the whole file.
func (f *sysFile) lockWhole() {}

// number returns the inode number. It is known for a file that this package
// opened. Asking could wait for a file system that does not answer, and then a
// program under the race detector would miss its deadlines.
func (f *sysFile) number() uint64 {
	if f.ino != 0 {
		return f.ino
	}
	id, _ := f.identity()
	return id.ino
}

// leased reports whether err, from opening a file, says that another process,
// such as a file server, has a lease on the file (fcntl(2)). The kernel has
// asked that process to give it up.
func leased(err error) bool { return errors.Is(err, unix.EWOULDBLOCK) }

func open(path string, flags int, perm uint32) (fd int, err error) {
	err = uninterrupted(func() error {
		fd, err = unix.Open(path, flags|openFlags, perm)
		return err
	})
	return fd, err
}

// uninterrupted repeats call until it is not interrupted by a signal.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// remembersAbsence reports whether this machine caches the directory of the
// file, and so may not see yet that another machine created a file in it.
func (f *sysFile) remembersAbsence() bool { return f.nfs }

// dup returns a copy of f that has a descriptor of its own and shares the
// locks.
func (f *sysFile) dup() (*sysFile, error) {
	fd, err := unix.FcntlInt(uintptr(f.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := *f
	c.fd = fd
	return &c, nil
}

// readStart reads the beginning of the file.
func (f *sysFile) readStart(buf []byte) (n int, err error) {
	err = uninterrupted(func() error {
		n, err = unix.Pread(f.fd, buf, 0)
		return err
	})
	return n, err
}

// writeStart writes the beginning of the file.
func (f *sysFile) writeStart(data []byte) error {
	return uninterrupted(func() error {
		n, err := unix.Pwrite(f.fd, data, 0)
		if err == nil && n < len(data) {
			err = unix.ENOSPC
		}
		return err
	})
}

// checkFile returns an error if anything other than a regular file is at path.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	return atpath.CheckRegular(info.Mode())
}

// close closes the descriptor. Closing its last copy releases the locks.
func (f *sysFile) close() { unix.Close(f.fd) }

// pathIdentity returns the identity of the file that is at path now.
func pathIdentity(path string) (identity, error) {
	var st unix.Stat_t
	err := lstat(path, &st)
	if err == unix.ENOTDIR { // no file can be there
		err = unix.ENOENT
	}
	return identify(&st), err
}

// fstat calls fstat(2) on an open file. It returns errStale if a remote file
// system no longer knows the file because its name was removed.
func fstat(fd int, st *unix.Stat_t) error {
	err := uninterrupted(func() error { return unix.Fstat(fd, st) })
	if atpath.Forgotten(err) {
		return errStale
	}
	return err
}

// lstat calls lstat(2). Some file systems in user space let a signal interrupt
// it, and fstat(2), too.
func lstat(path string, st *unix.Stat_t) error {
	return uninterrupted(func() error { return unix.Lstat(path, st) })
}

func identify(st *unix.Stat_t) identity {
	return identity{
		dev:     uint64(st.Dev),
		ino:     uint64(st.Ino),
		links:   uint64(st.Nlink),
		changed: st.Ctim.Nano(),
	}
}

func (f *sysFile) identity() (identity, error) {
	var st unix.Stat_t
	err := fstat(f.fd, &st)
	return identify(&st), err
}

// tryLock locks the whole file by flock(2). ErrLocked means that it is held.
func (f *sysFile) tryLock(m mode) error { return f.lockError(f.flock(flockMode(m) | unix.LOCK_NB)) }

func (f *sysFile) unlock() error { return f.flock(unix.LOCK_UN) }

func flockMode(m mode) int {
	if m == shared {
		return unix.LOCK_SH
	}
	return unix.LOCK_EX
}

func (f *sysFile) flock(how int) error {
	return uninterrupted(func() error { return unix.Flock(f.fd, how) })
}

// lockError translates an error from a lock call.
func (f *sysFile) lockError(err error) error {
	switch err {
	case nil:
		return nil
	case unix.EACCES: // on SMB, the lock is held; elsewhere, a security module may deny it
		if f.denies() {
			return err
		}
		return ErrLocked
	case unix.EWOULDBLOCK, unix.EDEADLK: // EDEADLK comes from NFS and Solaris servers
		return ErrLocked
	case unix.ENOLCK: // NFS without a lock daemon; ENOSYS and EOPNOTSUPP already match
		return &unsupportedError{err}
	}
	return err
}

type unsupportedError struct{ err error }

func (e *unsupportedError) Error() string        { return "cannot be locked: " + e.err.Error() }
func (e *unsupportedError) Unwrap() error        { return e.err }
func (e *unsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }

// tooManyOpen reports whether err says that there are too many open files.
func tooManyOpen(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
