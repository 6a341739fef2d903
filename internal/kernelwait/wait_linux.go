//go:build !interlock_bsd

package kernelwait

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A wait is one blocking system call that can be canceled.
//
// The call is made on a copy of the descriptor. To cancel it, cancel replaces
// the copy by a descriptor on which the call fails, and sends the thread
// SIGURG. The Go runtime handles that signal with SA_RESTART, and expects any
// number of them, since it preempts goroutines with it. So the kernel starts
// the call again, which now fails with EBADF. If the signal comes before the
// call blocks, or even before it is made, the number has changed already: no
// cancellation can be lost.
//
// A signal alone does not end such a call, and neither does closing the copy.
// Besides, a closed number could be reused for another file, and the call
// would then lock that one.
//
// A wait has three states, and run moves it from one to the next:
//
//	new       tid is 0; cancel replaces the copy, so that the call will fail
//	running   tid is the thread of the call; cancel replaces the copy and
//	          signals the thread
//	returned  the channel returned is closed; cancel does nothing, since the
//	          thread may run other calls, and the number may be reused
type wait struct {
	copy  int  // the copy of the descriptor
	dead  int  // the descriptor that replaces it, on which every call fails
	retry bool // repeat the call now and then, see [wait.repeat]

	mu       sync.Mutex
	tid      int           // 0 until the call runs
	closed   bool          // copy is closed
	returned chan struct{} // closed under mu when the call has returned
}

func newWait(fd int, retry bool) (*wait, error) {
	dead, err := deadFD()
	if err != nil {
		return nil, err
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &wait{copy: dup, dead: dead, retry: retry, returned: make(chan struct{})}, nil
}

// run makes the call. It must be called once.
func (w *wait) run(call func(fd int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// A thread can have inherited a mask that blocks the signal.
	var urgent, old unix.Sigset_t
	urgent.Val[0] = 1 << (unix.SIGURG - 1)
	unix.PthreadSigmask(unix.SIG_UNBLOCK, &urgent, &old)
	if old.Val[0]&urgent.Val[0] != 0 {
		defer unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	}
	w.mu.Lock()
	w.tid = unix.Gettid()
	w.mu.Unlock()
	if w.retry {
		go w.repeat()
	}
	err := ignoringEINTR(func() error { return call(w.copy) })
	w.mu.Lock()
	close(w.returned)
	w.mu.Unlock()
	return err
}

// cancel makes the call return, and no other call of its thread. It returns
// when the call has, so it may block if the kernel cannot interrupt the call.
func (w *wait) cancel() {
	w.cancelOnce()
	// One signal is enough, unless the program ignores it.
	for pause := 2500 * time.Microsecond; ; pause = min(2*pause, time.Second) {
		select {
		case <-w.returned:
			return
		case <-time.After(pause):
		}
		handleSIGURG()
		w.cancelOnce()
	}
}

func (w *wait) cancelOnce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hasReturned() {
		return
	}
	if !w.closed && unix.Dup3(w.dead, w.copy, unix.O_CLOEXEC) != nil {
		var limit unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && uint64(w.copy) >= limit.Cur {
			// The limit was lowered below the number of the copy, and dup3
			// refuses such a number. So it is safe to close it: the kernel
			// cannot reuse the number either, until the limit is raised.
			unix.Close(w.copy)
			w.closed = true
		}
	}
	if w.tid != 0 {
		unix.Tgkill(unix.Getpid(), w.tid, unix.SIGURG)
	}
}

// hasReturned reports whether the call has returned. The caller holds mu.
func (w *wait) hasReturned() bool {
	select {
	case <-w.returned:
		return true
	default:
		return false
	}
}

// repeat makes the kernel repeat the request of the call, at growing intervals,
// until the call returns. A client of NFS pauses between its requests for a
// lock that is held. A signal ends the pause, and the kernel starts the call
// again.
func (w *wait) repeat() {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		select {
		case <-w.returned:
			return
		case <-time.After(jitter(pause)):
		}
		w.mu.Lock()
		if !w.hasReturned() {
			unix.Tgkill(unix.Getpid(), w.tid, unix.SIGURG)
		}
		w.mu.Unlock()
	}
}

// jitter returns a pause between half of the given one and the whole, so that
// waiters that started together do not all ask at the same time.
func jitter(pause time.Duration) time.Duration { return pause/2 + rand.N(pause/2+1) }

// close closes the copy. It must be called after run has returned.
func (w *wait) close() {
	if !w.closed {
		unix.Close(w.copy)
	}
}

// dead is the descriptor that replaces the copies of canceled waits, plus one,
// or 0 before the first wait. It is never closed.
var dead atomic.Int64

// deadFD returns an O_PATH descriptor: no call can lock it. An ordinary file
// would not do, not even /dev/null. One canceled call could lock it, and then
// the next would wait for that lock.
func deadFD() (int, error) {
	if fd := dead.Load(); fd != 0 {
		return int(fd - 1), nil
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if !dead.CompareAndSwap(0, int64(fd+1)) {
		unix.Close(fd)
	}
	return int(dead.Load() - 1), nil
}
