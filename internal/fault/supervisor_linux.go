package fault

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// marker is the option of a prctl(2) call, which no kernel knows, by which the child talks to its supervisor in the middle of a run,
// in order with all its other calls. The second argument is one of the following.
const marker = 0x494c4b21

const (
	markBegin   = iota // from now on calls count and fail
	markEnd            // no more; returns the descriptor that a failed close has left, or 0
	markAside          // calls of this thread do not
	markBack           // they do again
	markFailed         // returns the call that has failed, and its error, or 0
	markWaiting        // returns when a call has been seen that waits, or after a while
)

func mark(what int) int {
	v, _, _ := unix.Syscall(unix.SYS_PRCTL, marker, uintptr(what), 0)
	return int(v)
}

// What is to happen while the child waits happens shortly after it has made a call that waits; and if it makes
// none, since something failed and it gets along otherwise, after a while.
const (
	afterWait   = 200 * time.Microsecond
	withoutWait = 8 * time.Millisecond
)

// A supervisor answers the system calls of a child.
type supervisor struct {
	listener int
	pid      int
	nobody   int // a file that nobody uses
	memory   *os.File
	initial  map[int32]bool // descriptors of the Go runtime, and of the child's input and output
	ended    chan struct{}

	mu      sync.Mutex
	dir     string                 // of the run
	target  int                    // which call is to fail
	only    func(call string) bool // of those that this is true of, unless nil
	counted int                    // how many were made of these
	choice  int                    // with which of its errors
	errno   unix.Errno             // or, if not 0, with this one
	unseen  time.Duration          // withoutWait, or longer
	armed   bool
	aside   map[uint32]bool
	waiting bool     // a call has been seen that waits
	onWait  []func() // what is to happen then
	made    []string // the calls of this run
	strays  []string // those that are not in the table
	failed  *failure
}

// A failure is a call that was made to fail.
type failure struct {
	nr      int32
	what    string
	errno   unix.Errno
	choices int // how many errors it has
	left    int // the descriptor that a failed close has left, or 0
}

func newSupervisor(listener, pid int) (*supervisor, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	nobody, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &supervisor{listener: listener, pid: pid, nobody: nobody, memory: memory, initial: make(map[int32]bool), unseen: withoutWait, ended: make(chan struct{})}
	// To wake who waits on the same processor halves the time; older kernels cannot.
	unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	go s.answer()
	return s, nil
}

// answer answers calls until the child is gone.
func (s *supervisor) answer() {
	defer close(s.ended)
	defer unix.Close(s.listener)
	defer unix.Close(s.nobody)
	defer s.memory.Close()
	for {
		ready := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err == unix.EINTR {
			continue
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notification
		if ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != nil {
			continue // interrupted, or the thread is gone
		}
		s.handle(&n)
	}
}

func (s *supervisor) handle(n *notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.nr == unix.SYS_PRCTL {
		s.marked(n)
		return
	}
	if !s.armed || s.aside[n.tid] {
		s.pass(n)
		return
	}
	c, ok := calls[n.nr]
	if !ok {
		s.strays = append(s.strays, strays[n.nr])
		s.pass(n)
		return
	}
	what, ours := c.target(s, n)
	if !ours {
		s.pass(n)
		return
	}
	if c.detail != nil && c.detail(n.args) == "" {
		s.strays = append(s.strays, fmt.Sprintf("%s(%s, %#x)", c.name, what, n.args[1]))
		s.pass(n)
		return
	}
	call := c.describe(what, n.args)
	s.made = append(s.made, call)
	counts := s.only == nil || s.only(call)
	if counts {
		s.counted++
	}
	if c.waits != nil && c.waits(n.args) && !s.waiting {
		s.waiting = true
		for _, f := range s.onWait {
			time.AfterFunc(afterWait, f)
		}
	}
	switch {
	case counts && s.counted == s.target:
		list := errnos(c.errnos(n.args))
		if strings.HasPrefix(what, "/proc/") {
			// It never blocks. But some of it can be polled, and so package os would wait until there is more to read.
			list = slices.DeleteFunc(list, func(e unix.Errno) bool { return e == unix.EAGAIN })
		}
		f := &failure{nr: n.nr, what: call, errno: list[s.choice%len(list)], choices: len(list)}
		if s.errno != 0 {
			f.errno = s.errno
		}
		if c.closes {
			f.left = int(n.args[0])
			add := addition{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, src: uint32(s.nobody), new: uint32(f.left), descrFlags: unix.O_CLOEXEC}
			if err := ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)); err != nil {
				panic(fmt.Sprint("cannot fail a close: ", err))
			}
		}
		s.failed = f
		s.respond(&response{id: n.id, err: -int32(f.errno)})
	case c.idle:
		s.respond(&response{id: n.id})
	default:
		s.pass(n)
	}
}

func (s *supervisor) marked(n *notification) {
	val := 0
	switch n.args[1] {
	case markBegin:
		s.armed = true
	case markEnd:
		s.armed = false
		if s.failed != nil {
			val = s.failed.left
		}
	case markAside:
		s.aside[n.tid] = true
	case markBack:
		delete(s.aside, n.tid)
	case markFailed:
		if s.failed != nil {
			val = int(s.failed.nr)<<16 | int(s.failed.errno)
		}
	case markWaiting:
		id := n.id
		s.whenWaiting(func() { s.respond(&response{id: id}) })
		return
	}
	s.respond(&response{id: n.id, val: int64(val)})
}

// whenWaiting calls f, once, when the child waits. The caller holds mu.
func (s *supervisor) whenWaiting(f func()) {
	once := sync.OnceFunc(f)
	s.onWait = append(s.onWait, once)
	if s.waiting {
		time.AfterFunc(afterWait, once)
	} else {
		time.AfterFunc(s.unseen, once)
	}
}

func (s *supervisor) pass(n *notification) {
	s.respond(&response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// respond answers a call, unless the child, or a signal, has withdrawn it.
func (s *supervisor) respond(r *response) {
	ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r))
}

// begin prepares for a run in dir in which the target-th call fails with one of its errors; 0 for none.
func (s *supervisor) begin(dir string, target, choice int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir, s.target, s.choice = dir, target, choice
	s.armed, s.aside, s.waiting, s.onWait = false, make(map[uint32]bool), false, nil
	s.made, s.counted, s.strays, s.failed = nil, 0, nil, nil
}

// result returns the calls that were made, and the one that failed, or nil.
func (s *supervisor) result() ([]string, *failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made, s.failed
}

// outside returns a problem for each call that was made and is not in the table.
func (s *supervisor) outside() (problems []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range s.strays {
		problems = append(problems, what+" is not in the table of calls that are made to fail")
	}
	return problems
}

// flush does what was to be done while the child waits, and was not yet.
func (s *supervisor) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.onWait {
		f()
	}
}
