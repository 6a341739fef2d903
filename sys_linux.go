package interlock

import (
	"context"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// localFileSystems are those known to be local. On these
//   - no call here ever waits for another machine or process, so that it may be a raw one,
//     which the scheduler is not told of;
//   - flock(2) and open file description locks do not see each other, so that the gate
//     can be a byte of the lock file;
//   - to rename a file changes its ctime.
//
// That is said of the file. The directories on its path may be elsewhere; then they, and
// only they, can hold up who looks whether the file is still there.
//
// The list is one of what is known; whatever is not on it gets the careful treatment.
var localFileSystems = []uint32{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC,
	unix.OVERLAYFS_SUPER_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1,
}

// setLocal looks whether the handle is on one of the localFileSystems.
func (h *handle) setLocal() {
	var st unix.Statfs_t
	if unix.Fstatfs(h.fd, &st) != nil {
		return
	}
	h.local = slices.Contains(localFileSystems, uint32(st.Type))
	h.nfs = st.Type == unix.NFS_SUPER_MAGIC
	if h.local && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		// What is open for writing is in the upper layer. Below may be anything, and there
		// neither the link count nor the ctime tells of a removal.
		flags, err := unix.FcntlInt(uintptr(h.fd), unix.F_GETFL, 0)
		h.local = err == nil && flags&unix.O_ACCMODE != unix.O_RDONLY
	}
}

func (h handle) identity() (identity, error) {
	var st unix.Stat_t
	err := fstat(h.fd, &st)
	return identify(&st), err
}

// rawCalls: that SYS_FSTAT fills a Stat_t and SYS_FCNTL takes a Flock_t. On 32 bits other calls do.
const rawCalls = runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64"

// tryLockUnchanged takes the flock(2) of a local file, if it is free and the file's ctime is the
// given one. It may fail for other reasons, and has then changed nothing.
func (h handle) tryLockUnchanged(m hold, ctime int64) bool {
	if !rawCalls {
		return false
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_FLOCK, uintptr(h.fd), uintptr(flockMode(m)|unix.LOCK_NB), 0, 0, 0, 0)
	if errno != 0 {
		return false
	}
	var st unix.Stat_t
	_, _, errno = unix.RawSyscall6(unix.SYS_FSTAT, uintptr(h.fd), uintptr(unsafe.Pointer(&st)), 0, 0, 0, 0)
	if errno == 0 && st.Nlink != 0 && st.Ctim.Nano() == ctime {
		return true
	}
	h.unlockLocal()
	return false
}

// unlockLocal reports whether it has released the flock(2) of a local file.
func (h handle) unlockLocal() bool {
	_, _, errno := unix.RawSyscall6(unix.SYS_FLOCK, uintptr(h.fd), unix.LOCK_UN, 0, 0, 0, 0)
	return errno == 0
}

// tryLock takes the flock(2) without waiting. ErrLocked means that it is held.
func (h handle) tryLock(m hold) error { return lockError(h.flock(flockMode(m) | unix.LOCK_NB)) }

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
	l := h.gateLock(m)
	return lockError(uninterrupted(func() error { return unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_SETLK, &l) }))
}

func (h handle) waitGate(ctx context.Context, m hold, dispose func()) error {
	l := h.gateLock(m)
	return h.wait(ctx, func(fd int) error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &l) }, dispose)
}

func (h handle) leaveGate() {
	l := h.gateLock(exclusive)
	l.Type = unix.F_UNLCK
	uninterrupted(func() error { return unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_SETLK, &l) })
}

// roles returns handles for the three locks of a semaphore's gate file h, see semGate: bytes after
// that of a gate.
func (h handle) roles(string, fs.FileMode) (use, waiting, collect handle, err error) {
	use, waiting, collect = h, h, h
	use.gateAt, waiting.gateAt, collect.gateAt = gateByte+1, gateByte+2, gateByte+3
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
		_, _, errno := unix.RawSyscall6(unix.SYS_FCNTL, uintptr(h.fd), unix.F_OFD_GETLK, uintptr(unsafe.Pointer(&l)), 0, 0, 0)
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
		return waitError(uninterrupted(func() error { return lock(h.fd) }))
	}
	c, err := newEndableCall(h)
	if err != nil {
		waits.Release(1)
		return errCannotWait
	}
	if ctx.Done() == nil {
		defer waits.Release(1)
		err = c.run(lock)
		c.copy.close()
		return waitError(err)
	}
	if h.local {
		// On this goroutine: to hand the result to another one takes as long as the kernel
		// needs to hand on the lock.
		defer waits.Release(1)
		stop := context.AfterFunc(ctx, c.end)
		err = c.run(lock)
		c.copy.close()
		if !stop() {
			return ctx.Err()
		}
		return waitError(err)
	}
	err = offload(ctx, waits, func() error { return c.run(lock) }, c.end, func() {
		c.copy.close()
		dispose()
	})
	if err != errAbandoned {
		briefly(c.copy.close)
	}
	return waitError(err)
}

// waitError is [lockError] for a call that was to wait.
func waitError(err error) error {
	if err = lockError(err); err == ErrLocked {
		return errCannotWait // the file system does not wait, or sees a deadlock
	}
	return err
}

// An endableCall is a system call that waits for a lock, and can be ended.
//
// The call is made on a copy of the descriptor, which shares the open file description and so the
// lock. To end it, the copy's number is made to mean something that cannot be locked, and
// the thread is sent SIGURG. The Go runtime handles that signal with SA_RESTART, and any
// number of them, since it preempts goroutines with it: the kernel starts the call anew,
// which now fails with EBADF. If the signal comes before the call waits, or even before
// the call, the number has changed already: no wake-up can be lost.
//
// Neither a signal alone nor closing the copy ends such a call, and a closed number could
// be given to a file of somebody else's, which the call would then lock. What cannot be
// locked is an O_PATH descriptor; any inode that can, /dev/null say, would be locked by
// one ended call and then be waited for by the next.
type endableCall struct {
	copy       handle
	unlockable int
	nudged     bool // see nudge

	mu       sync.Mutex
	tid      int           // while the call runs
	returned chan struct{} // closed under mu; from then on the copy's number must not be touched
}

func newEndableCall(h handle) (*endableCall, error) {
	unlockable, err := unlockableFD()
	if err != nil {
		return nil, err
	}
	dup, err := h.dup()
	if err != nil {
		return nil, err
	}
	return &endableCall{copy: dup, unlockable: unlockable, nudged: h.nfs, returned: make(chan struct{})}, nil
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

func (c *endableCall) run(lock func(fd int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A thread can have inherited a mask that blocks the signal.
	var unblock, was unix.Sigset_t
	unblock.Val[0] = 1 << (unix.SIGURG - 1)
	unix.PthreadSigmask(unix.SIG_UNBLOCK, &unblock, &was)
	if was.Val[0]&unblock.Val[0] != 0 {
		defer unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil)
	}
	c.mu.Lock()
	c.tid = unix.Gettid()
	c.mu.Unlock()
	if c.nudged {
		go c.nudge()
	}
	err := uninterrupted(func() error { return lock(c.copy.fd) })
	c.mu.Lock()
	close(c.returned)
	c.mu.Unlock()
	return err
}

// end makes the call return, and no other call of this thread.
//
// A program that called [signal.Ignore] or [signal.Reset] has no handler of SIGURG any more, and
// the first signal does nothing. To ask to be notified of it makes the runtime handle it again.
// That is what it does in every program by default; for the program, SIGURG is as good as
// ignored then, too.
func (c *endableCall) end() {
	c.signal()
	for range 10 {
		select {
		case <-c.returned:
			return
		case <-time.After(grace / 4):
		}
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGURG)
		c.signal()
		signal.Stop(signals)
	}
}

// nudge makes the kernel ask for the lock anew, at growing intervals, until it has it. The client of NFS v4.0,
// and that of a later version whose server does not call back, would do so by itself only after 1, 2, 4 and at
// last 30 seconds. A signal ends that pause, and the kernel starts the call anew.
func (c *endableCall) nudge() {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		select {
		case <-c.returned:
			return
		case <-time.After(jitter(pause)):
		}
		c.mu.Lock()
		select {
		case <-c.returned:
		default:
			unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG)
		}
		c.mu.Unlock()
	}
}

func (c *endableCall) signal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.returned:
		return
	default:
	}
	unix.Dup3(c.unlockable, c.copy.fd, unix.O_CLOEXEC)
	if c.tid != 0 {
		unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG)
	}
}

// unlockable is the O_PATH descriptor by which waits are ended, plus one; 0 before the first.
var unlockable atomic.Int64

func unlockableFD() (int, error) {
	if fd := unlockable.Load(); fd != 0 {
		return int(fd - 1), nil
	}
	fd, err := open("/", unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	if !unlockable.CompareAndSwap(0, int64(fd+1)) {
		unix.Close(fd)
	}
	return int(unlockable.Load() - 1), nil
}
