//go:build !interlock_bsd

package interlock

import (
	"context"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// localFileSystems are those known to be local. On these
//   - no call here ever waits for another machine or process, so that it may be a raw one,
//     which the scheduler is not told of;
//   - flock(2) and open file description locks do not see each other, so that the gate
//     can be a byte of the lock file.
//
// That is said of the file. The directories on its path may be elsewhere; then they, and
// only they, can hold up who looks whether the file is still there.
//
// The list is one of what is known; whatever is not on it gets the careful treatment.
var localFileSystems = []uint32{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
	unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1,
}

// renameMarking are those where whatever takes a file from its name changes the ctime of the file, or its link count.
// On XFS an exchange (renameat2(2)) does not; and below overlayfs may be XFS.
var renameMarking = []uint32{
	unix.EXT4_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1,
}

// setLocal looks whether the handle is on one of the localFileSystems.
func (h *handle) setLocal() {
	kind, local := h.fileSystem()
	h.local = local
	h.marked = local && slices.Contains(renameMarking, kind)
	h.nfs = kind == unix.NFS_SUPER_MAGIC
	if local && kind == unix.OVERLAYFS_SUPER_MAGIC {
		// What is open for writing is in the upper layer. Below may be anything, and there
		// neither the link count nor the ctime tells of a removal.
		flags, err := unix.FcntlInt(uintptr(h.fd), unix.F_GETFL, 0)
		h.local = err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
	}
}

// fileSystem returns the kind of file system, and whether that is one of the localFileSystems.
func (h handle) fileSystem() (kind uint32, local bool) {
	var st unix.Statfs_t
	if uninterrupted(func() error { return unix.Fstatfs(h.fd, &st) }) != nil {
		return 0, false
	}
	return uint32(st.Type), slices.Contains(localFileSystems, uint32(st.Type))
}

func (h handle) identity() (identity, error) {
	var st unix.Stat_t
	err := fstat(h.fd, &st)
	return identify(&st), err
}

// rawCalls: that SYS_FSTAT fills a Stat_t and SYS_FCNTL takes a Flock_t. On 32 bits other calls do.
const rawCalls = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// acquireKnown is a quick acquire for a local file, which may fail for any reason and has then changed nothing. The
// calls are made right here: on some machines each return after a system call costs some hundredths of it all.
func (f *lockFile) acquireKnown(m hold, now time.Duration) bool {
	if f.name == nil && (!rawCalls || now-f.knownAt >= pathCheckInterval) {
		return false
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_FLOCK, uintptr(f.fd), uintptr(flockMode(m)|unix.LOCK_NB), 0, 0, 0, 0)
	if errno != 0 {
		return false
	}
	if f.name == nil {
		var st unix.Stat_t
		_, _, errno = syscall.RawSyscall6(unix.SYS_FSTAT, uintptr(f.fd), uintptr(unsafe.Pointer(&st)), 0, 0, 0, 0)
		if errno == 0 && st.Nlink != 0 && st.Ctim.Nano() == f.known {
			return true
		}
	} else if f.isNamed() {
		return true
	}
	f.unlockLocal()
	return false
}

// isNamed reports whether f is known to be the file at its name. Unlike pathIdentity it allocates nothing.
func (f *lockFile) isNamed() bool {
	if f.name == nil {
		return false
	}
	var st unix.Statx_t
	cwd := unix.AT_FDCWD
	_, _, errno := syscall.Syscall6(unix.SYS_STATX, uintptr(cwd), uintptr(unsafe.Pointer(&f.name[0])), unix.AT_SYMLINK_NOFOLLOW,
		unix.STATX_INO, uintptr(unsafe.Pointer(&st)), 0)
	return errno == 0 && st.Ino == f.ino && unix.Mkdev(st.Dev_major, st.Dev_minor) == f.dev
}

// unlockLocal reports whether it has released the flock(2) of a local file.
func (h handle) unlockLocal() bool {
	_, _, errno := syscall.RawSyscall6(unix.SYS_FLOCK, uintptr(h.fd), unix.LOCK_UN, 0, 0, 0, 0)
	return errno == 0
}

// tryLock takes the flock(2) without waiting. ErrLocked means that it is held.
func (h handle) tryLock(m hold) error { return h.lockError(h.flock(flockMode(m) | unix.LOCK_NB)) }

func (h handle) unlock() error { return h.flock(unix.LOCK_UN) }

func flockMode(m hold) int {
	if m == shared {
		return unix.LOCK_SH
	}
	return unix.LOCK_EX
}

func (h handle) flock(how int) error {
	return uninterrupted(func() error { return unix.Flock(h.fd, how) })
}

// waitLock takes the flock(2) in the kernel's queue; for its errors see wait.
func (h handle) waitLock(ctx context.Context, m hold, dispose func()) error {
	return h.wait(ctx, func(fd int) error { return unix.Flock(fd, flockMode(m)) }, dispose)
}

// The gate is an open file description lock (fcntl(2)) on a byte that no file reaches.
const gateByte = 1 << 61

// gateFor makes h, a file of its own, the gate for lock. Its byte depends on which file that is: when
// the lock file is replaced, who waits for the old one must not stop who uses the new one.
func (h *handle) gateFor(lock handle) { h.gateAt = int64(lock.ino % gateByte) }

// gateInFile reports whether the gate of the lock file h is a byte of the same file.
func (h handle) gateInFile() bool { return h.local }

func (h handle) gateLock(m hold) unix.Flock_t {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: h.gateAt, Len: 1}
	if h.gateAt == 0 {
		l.Start = gateByte
	}
	if m == shared {
		l.Type = unix.F_RDLCK
	}
	return l
}

func (h handle) tryGate(m hold) error {
	if h.gateAt == byFlock {
		return h.tryLock(m)
	}
	l := h.gateLock(m)
	return h.lockError(uninterrupted(func() error { return unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_SETLK, &l) }))
}

func (h handle) waitGate(ctx context.Context, m hold, dispose func()) error {
	l := h.gateLock(m)
	return h.wait(ctx, func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &l) }, dispose)
}

func (h handle) leaveGate() error {
	if h.gateAt == byFlock {
		return h.unlock()
	}
	l := h.gateLock(exclusive)
	l.Type = unix.F_UNLCK
	return uninterrupted(func() error { return unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_SETLK, &l) })
}

// byFlock, instead of the byte of a gate: it is the flock(2) of the file, which does not see the bytes.
const byFlock = -1

// roles returns handles for the three locks of a semaphore's gate file h, see semGate: bytes after
// that of a gate. The collect lock is the flock(2), where that does not see them: to
// take it exclusive, the file need not be open for writing.
func (h handle) roles(string, fs.FileMode) (use, waiting, collect handle, err error) {
	use, waiting, collect = h, h, h
	use.gateAt, waiting.gateAt, collect.gateAt = gateByte+1, gateByte+2, gateByte+3
	// Not by h.local, which on overlayfs is not the same for all who have the file open.
	if _, local := h.fileSystem(); local {
		collect.gateAt = byFlock
	}
	return use, waiting, collect, nil
}

// closeRole gives up a lock of a semaphore's gate, but for use.
func (h handle) closeRole() { h.leaveGate() }

// shareGate turns an exclusive gate lock to a shared one. Others may have it in between: ErrLocked.
func (h handle) shareGate() error { return h.tryGate(shared) }

// gateTaken reports whether somebody else stands at the gate in a mode that excludes m.
func (h handle) gateTaken(m hold) bool {
	l := h.gateLock(m)
	if h.local && rawCalls {
		_, _, errno := syscall.RawSyscall6(unix.SYS_FCNTL, uintptr(h.fd), unix.F_OFD_GETLK, uintptr(unsafe.Pointer(&l)), 0, 0, 0)
		return errno == 0 && l.Type != unix.F_UNLCK
	}
	err := unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_GETLK, &l)
	return err == nil && l.Type != unix.F_UNLCK
}

// wait runs lock, a system call that waits in the kernel for a lock, and ends it when ctx
// ends. If it returns an error, the lock is not held, but for these:
//
//   - ctx.Err(): it may have got the lock in the same instant. The caller must unlock h.
//   - errAbandoned: the call goes on, though ctx has ended (see [offload]). Not on a local
//     file system.
//
// After errCannotWait, the call was not made, or not waited.
func (h handle) wait(ctx context.Context, lock func(fd int) error, dispose func()) error {
	// On NFS v3, a storm of cancels has left a lock held for good with nobody to hold it, presumably when a wait
	// is cancelled just as the server (Linux 6.1) grants the lock.
	if h.nfs && !isNFS4(h.fd) || !waits.TryAcquire(1) {
		return errCannotWait
	}
	if ctx.Done() == nil && !h.nfs {
		defer waits.Release(1)
		return h.waitError(uninterrupted(func() error { return lock(h.fd) }))
	}
	c, err := newEndableCall(h)
	if err != nil {
		waits.Release(1)
		return errCannotWait
	}
	if ctx.Done() == nil {
		defer waits.Release(1)
		err = c.run(lock)
		c.close()
		return h.waitError(err)
	}
	if h.local {
		// On this goroutine: to hand the result to another one takes as long as the kernel
		// needs to hand on the lock.
		defer waits.Release(1)
		stop := context.AfterFunc(ctx, c.end)
		err = c.run(lock)
		c.close()
		if !stop() {
			return ctx.Err()
		}
		return h.waitError(err)
	}
	err = offload(ctx, func() { waits.Release(1) }, func() error { return c.run(lock) }, c.end, func() {
		c.close()
		dispose()
	})
	if err != errAbandoned {
		briefly(c.close)
	}
	return h.waitError(err)
}

// denies reports whether EACCES of a lock call cannot mean that somebody has the lock.
func (h handle) denies() bool {
	_, local := h.fileSystem()
	return local
}

// waitError is lockError for a call that was to wait.
func (h handle) waitError(err error) error {
	if err = h.lockError(err); err == ErrLocked {
		return errCannotWait // the file system does not wait, or sees a deadlock
	}
	return err
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
