//go:build !interlock_bsd

package interlock

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/interlock-go/interlock/internal/kernelwait"
	"golang.org/x/sys/unix"
)

// localFileSystems are the file systems that are known to be local. For an open
// file, that means:
//
//   - A lock call waits for no other machine or process, except for a lock. So
//     it may be a raw system call, which the Go scheduler does not know about.
//   - flock(2) locks and open file description locks do not see each other.
//
// The directories on the path of a file may be on other file systems. Every
// file system that is not on the list gets the careful treatment.
var localFileSystems = []uint32{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
	unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1,
}

// renameMarking are the file systems where taking a name from a file changes
// the ctime of the file or its number of links. On XFS, an exchange
// (renameat2(2)) does not, and XFS may lie below overlayfs.
var renameMarking = []uint32{
	unix.EXT4_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1,
}

// classify finds out what kind of file system the file is on.
func (f *sysFile) classify() {
	kind, known := f.fileSystem()
	f.local, f.knownFS = known, known
	f.marked = known && slices.Contains(renameMarking, kind)
	f.nfs = kind == unix.NFS_SUPER_MAGIC
	if known && kind == unix.OVERLAYFS_SUPER_MAGIC {
		// A file that is open for writing is in the upper layer. The
		// lower layer may be of any kind, and its link counts and
		// ctimes do not show a removal.
		flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
		f.local = err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
	}
}

// fileSystem returns the kind of the file system, and whether it is in
// localFileSystems.
func (f *sysFile) fileSystem() (kind uint32, known bool) {
	var st unix.Statfs_t
	if uninterrupted(func() error { return unix.Fstatfs(f.fd, &st) }) != nil {
		return 0, false
	}
	return uint32(st.Type), slices.Contains(localFileSystems, uint32(st.Type))
}

// rawCalls reports whether SYS_FSTAT fills a Stat_t and SYS_FCNTL takes a
// Flock_t. On 32-bit systems, other calls do.
const rawCalls = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// tryLockUnchanged locks a file on a local file system if the lock is free, the
// file has a name, and its ctime is the given one. It reports whether it did;
// otherwise it changes nothing.
//
// It makes the system calls itself: on some machines, each level of Go calls
// between them costs some hundredths of the total.
func (f *sysFile) tryLockUnchanged(m mode, ctime int64) bool {
	if !rawCalls {
		if f.flock(flockMode(m)|unix.LOCK_NB) != nil {
			return false
		}
		if id, err := f.identity(); err == nil && id.links != 0 && id.changed == ctime {
			return true
		}
		f.unlockRaw()
		return false
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_FLOCK, uintptr(f.fd), uintptr(flockMode(m)|unix.LOCK_NB), 0, 0, 0, 0)
	if errno != 0 {
		return false
	}
	var st unix.Stat_t
	_, _, errno = syscall.RawSyscall6(unix.SYS_FSTAT, uintptr(f.fd), uintptr(unsafe.Pointer(&st)), 0, 0, 0, 0)
	if errno == 0 && st.Nlink != 0 && st.Ctim.Nano() == ctime {
		return true
	}
	f.unlockRaw()
	return false
}

// tryLockNamed is like tryLockUnchanged, for a file whose ctime proves nothing.
// It looks at the path, which ends with a NUL byte.
func (f *sysFile) tryLockNamed(m mode, path []byte) bool {
	_, _, errno := syscall.RawSyscall6(unix.SYS_FLOCK, uintptr(f.fd), uintptr(flockMode(m)|unix.LOCK_NB), 0, 0, 0, 0)
	if errno != 0 {
		return false
	}
	if f.isNamed(path) {
		return true
	}
	f.unlockRaw()
	return false
}

// isNamed reports whether the file is known to be the one at path, which ends
// with a NUL byte. Unlike pathIdentity, it allocates nothing.
func (f *sysFile) isNamed(path []byte) bool {
	var st unix.Statx_t
	cwd := unix.AT_FDCWD
	_, _, errno := syscall.Syscall6(unix.SYS_STATX, uintptr(cwd), uintptr(unsafe.Pointer(&path[0])), unix.AT_SYMLINK_NOFOLLOW,
		unix.STATX_INO|unix.STATX_NLINK, uintptr(unsafe.Pointer(&st)), 0)
	return errno == 0 && st.Nlink != 0 && st.Ino == f.ino && unix.Mkdev(st.Dev_major, st.Dev_minor) == f.dev
}

// unlockRaw unlocks a file on a local file system, and reports whether it
// could.
func (f *sysFile) unlockRaw() bool {
	_, _, errno := syscall.RawSyscall6(unix.SYS_FLOCK, uintptr(f.fd), unix.LOCK_UN, 0, 0, 0, 0)
	return errno == 0
}

// waitLock is like tryLock, but waits in the kernel's queue. See block.
func (f *sysFile) waitLock(ctx context.Context, m mode, late func()) (abandoned bool, err error) {
	return f.block(ctx, func(fd int) error { return unix.Flock(fd, flockMode(m)) }, late)
}

// Byte locks are open file description locks (fcntl(2)). They start at
// farByte, which is beyond the end of any file.
const (
	byteLocks = true
	farByte   = 1 << 61

	// locksStack says that a second lock of an open file is added to the
	// first one, instead of replacing it.
	locksStack = false
)

// bytesApart reports whether byte locks of the file and the lock of the whole
// file do not see each other.
func (f *sysFile) bytesApart() bool { return f.local }

func byteLock(at int64, m mode) unix.Flock_t {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1}
	if m == shared {
		l.Type = unix.F_RDLCK
	}
	return l
}

// tryByte locks a byte. ErrLocked means that it is held.
func (f *sysFile) tryByte(at int64, m mode) error {
	l := byteLock(at, m)
	return f.lockError(uninterrupted(func() error { return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l) }))
}

// waitByte is like tryByte, but waits in the kernel's queue. See block.
func (f *sysFile) waitByte(ctx context.Context, at int64, m mode, late func()) (abandoned bool, err error) {
	l := byteLock(at, m)
	return f.block(ctx, func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &l) }, late)
}

func (f *sysFile) unlockByte(at int64) error {
	l := byteLock(at, exclusive)
	l.Type = unix.F_UNLCK
	return uninterrupted(func() error { return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &l) })
}

// byteTaken reports whether another open file has a lock on the byte that
// excludes m. This system can tell, so known is true.
func (f *sysFile) byteTaken(at int64, m mode) (taken, known bool) {
	l := byteLock(at, m)
	if f.local && rawCalls {
		_, _, errno := syscall.RawSyscall6(unix.SYS_FCNTL, uintptr(f.fd), unix.F_OFD_GETLK, uintptr(unsafe.Pointer(&l)), 0, 0, 0)
		return errno == 0 && l.Type != unix.F_UNLCK, true
	}
	err := uninterrupted(func() error { return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_GETLK, &l) })
	return err == nil && l.Type != unix.F_UNLCK, true
}

// block makes lock, a system call that waits in the kernel until a lock is
// granted, and ends it when ctx is done. After an error, the lock is not held,
// with two exceptions:
//
//   - If the error is ctx.Err(), the lock may have been granted at the same
//     time. The caller must unlock it.
//   - If abandoned is true, the call goes on although ctx is done. late runs
//     when the call has returned. If late is nil, no call is abandoned.
//
// With a nil late, the call is made on the caller's goroutine. Handing the
// result to another goroutine takes as long as the kernel needs to hand on the
// lock.
//
// After errCannotWait, the call was not made, or did not wait.
func (f *sysFile) block(ctx context.Context, lock func(fd int) error, late func()) (abandoned bool, err error) {
	switch {
	case f.nfs && !isNFS4(f.fd):
		// On NFS v3, a storm of cancels once left a lock held that no
		// process had. Presumably a wait was canceled just as the
		// server (Linux 6.1) granted the lock.
		return false, errCannotWait
	case late == nil:
		err = kernelwait.Do(ctx, f.fd, lock)
	default:
		abandoned, err = kernelwait.Offload(ctx, f.fd, f.nfs, lock, late)
	}
	if err == kernelwait.ErrUnavailable {
		err = errCannotWait
	}
	if err = f.lockError(err); err == ErrLocked {
		err = errCannotWait // the file system does not wait, or sees a deadlock
	}
	return abandoned, err
}

// denies reports whether EACCES from a lock call cannot mean that the lock is
// held.
func (f *sysFile) denies() bool {
	_, known := f.fileSystem()
	return known
}

// isNFS4 reports whether a file on NFS is known to be on a mount of version 4.
func isNFS4(fd int) bool {
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return false
	}
	_, id, _ := strings.Cut(string(info), "mnt_id:")
	if id, _, _ = strings.Cut(id, "\n"); strings.TrimSpace(id) == "" {
		return false
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo") // ID … - type source options
	for line := range strings.Lines(string(mounts)) {
		if mount, ok := strings.CutPrefix(line, strings.TrimSpace(id)+" "); ok {
			return strings.Contains(mount, " - nfs4 ")
		}
	}
	return false
}
