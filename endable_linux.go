//go:build !interlock_bsd

package interlock

import (
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
	closed   bool          // copy is closed
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
func (c *endableCall) end() {
	c.signal()
	for pause := 2500 * time.Microsecond; ; pause = min(2*pause, time.Second) {
		select {
		case <-c.returned:
			return
		case <-time.After(pause):
		}
		handleSIGURG()
		c.signal()
	}
}

// A sigaction is how a signal is handled, as the kernel has it, which is shorter on every architecture.
type sigaction [8]uintptr

// isMIPS: that the kernel has everything differently there.
var isMIPS = strings.HasPrefix(runtime.GOARCH, "mips")

// swapSigaction sets how SIGURG is handled, unless to is nil, and returns how it was.
func swapSigaction(to *sigaction) (was sigaction) {
	setSize := uintptr(8)
	if isMIPS {
		setSize = 16
	}
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGURG), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(&was)), setSize, 0, 0)
	return was
}

// ignores reports whether there is no handler: the signal's default is to be ignored.
func (a *sigaction) ignores() bool {
	handler := a[0]
	if isMIPS {
		handler = a[1]
	}
	const sigDfl, sigIgn = 0, 1
	return handler == sigDfl || handler == sigIgn
}

// runtimeHandler is what the Go runtime has set, since it preempts goroutines by SIGURG; unless another package, that was
// initialized before, has changed it.
var runtimeHandler = swapSigaction(nil)

// handleSIGURG puts the runtime's handler of SIGURG back, if the program ignores the signal: by [signal.Ignore] or
// [signal.Reset], or by what is not Go. For the program it is as good as ignored then, too.
func handleSIGURG() {
	now := swapSigaction(nil)
	switch {
	case !now.ignores():
	case runtimeHandler.ignores(): // by then already
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGURG)
		signal.Stop(signals)
	default:
		swapSigaction(&runtimeHandler)
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
	var limit unix.Rlimit
	switch {
	case c.closed || unix.Dup3(c.unlockable, c.copy.fd, unix.O_CLOEXEC) == nil:
	case unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && uint64(c.copy.fd) >= limit.Cur:
		// The limit was lowered, and nobody can be given this number before it is raised.
		c.copy.close()
		c.closed = true
	}
	if c.tid != 0 {
		unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG)
	}
}

// close closes what run has used.
func (c *endableCall) close() {
	if !c.closed {
		c.copy.close()
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
