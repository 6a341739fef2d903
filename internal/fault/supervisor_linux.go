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

// controlOption is an option of prctl(2) that no kernel knows. The child makes
// such calls to talk to its supervisor during a run, in order with its other
// calls. The second argument is one of the constants below.
const controlOption = 0x494c4b21

const (
	controlBegin   = iota // from now on, count calls and let one fail
	controlEnd            // stop that; returns the descriptor that a failed close left, or 0
	controlAside          // exempt the calling thread
	controlBack           // end the exemption
	controlFailed         // returns the call that failed and its error, or 0
	controlWaiting        // returns after a call that waits, or after a while
)

func control(what int) int {
	v, _, _ := unix.Syscall(unix.SYS_PRCTL, controlOption, uintptr(what), 0)
	return int(v)
}

// A function that should run while the child waits runs afterWait after the
// child made a call that waits. If the child makes no such call, because a
// failure led it another way, the function runs after withoutWait.
const (
	afterWait   = 200 * time.Microsecond
	withoutWait = 8 * time.Millisecond
)

// A supervisor decides on the system calls of a child.
type supervisor struct {
	listener int
	pid      int
	devNull  int // an open file that the child does not use
	memory   *os.File
	initial  map[int32]bool // descriptors of the Go runtime, and of standard input and output
	ended    chan struct{}  // closed when the child is gone

	mu        sync.Mutex             // guards the fields below
	dir       string                 // the directory of the run
	target    int                    // the number of the call that fails, or 0
	only      func(call string) bool // which calls are counted; nil means all
	counted   int                    // the number of counted calls so far
	choice    int                    // which of its errors the target fails with
	errno     unix.Errno             // if not 0, the error that the target fails with
	waitLimit time.Duration          // withoutWait, or longer
	armed     bool                   // calls count
	aside     map[uint32]bool        // threads whose calls do not count
	waiting   bool                   // the child made a call that waits
	onWait    []func()               // functions to run while the child waits
	made      []string               // the calls of this run
	unlisted  []string               // calls of this run that are not in the table
	failed    *failure               // the call that failed, or nil
}

// A failure is a call that was made to fail.
type failure struct {
	nr      int32
	what    string
	errno   unix.Errno
	choices int // the number of its errors
	left    int // the descriptor that a failed close left, or 0
}

func newSupervisor(listener, pid int) (*supervisor, error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	devNull, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &supervisor{
		listener:  listener,
		pid:       pid,
		devNull:   devNull,
		memory:    memory,
		initial:   make(map[int32]bool),
		waitLimit: withoutWait,
		ended:     make(chan struct{}),
	}
	// To wake a waiting thread on the same processor halves the time. Older
	// kernels do not know this flag.
	unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	go s.answer()
	return s, nil
}

// answer decides on calls until the child is gone.
func (s *supervisor) answer() {
	defer close(s.ended)
	defer unix.Close(s.listener)
	defer unix.Close(s.devNull)
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
			continue // a signal interrupted the call, or the thread is gone
		}
		s.handle(&n)
	}
}

// handle decides on a call.
func (s *supervisor) handle(n *notification) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.nr == unix.SYS_PRCTL {
		s.control(n)
		return
	}
	if !s.armed || s.aside[n.tid] {
		s.pass(n)
		return
	}
	c, ok := calls[n.nr]
	if !ok {
		s.unlisted = append(s.unlisted, unlistedCalls[n.nr])
		s.pass(n)
		return
	}
	what, ours := c.target(s, n)
	if !ours {
		s.pass(n)
		return
	}
	if c.detail != nil && c.detail(n.args) == "" {
		s.unlisted = append(s.unlisted, fmt.Sprintf("%s(%s, %#x)", c.name, what, n.args[1]))
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
		list := unique(c.errnos(n.args))
		if strings.HasPrefix(what, "/proc/") {
			// A read of these files never blocks. Some of them can be polled,
			// so package os would wait until there is more to read.
			list = slices.DeleteFunc(list, func(e unix.Errno) bool { return e == unix.EAGAIN })
		}
		f := &failure{nr: n.nr, what: call, errno: list[s.choice%len(list)], choices: len(list)}
		if s.errno != 0 {
			f.errno = s.errno
		}
		if c.closes {
			f.left = int(n.args[0])
			add := addition{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, src: uint32(s.devNull), new: uint32(f.left), descrFlags: unix.O_CLOEXEC}
			if err := ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)); err != nil {
				panic(fmt.Sprint("cannot make a close fail: ", err))
			}
		}
		s.failed = f
		s.respond(&response{id: n.id, err: -int32(f.errno)})
	case c.pretend:
		s.respond(&response{id: n.id})
	default:
		s.pass(n)
	}
}

// control handles a call with the controlOption.
func (s *supervisor) control(n *notification) {
	val := 0
	switch n.args[1] {
	case controlBegin:
		s.armed = true
	case controlEnd:
		s.armed = false
		if s.failed != nil {
			val = s.failed.left
		}
	case controlAside:
		s.aside[n.tid] = true
	case controlBack:
		delete(s.aside, n.tid)
	case controlFailed:
		if s.failed != nil {
			val = int(s.failed.nr)<<16 | int(s.failed.errno)
		}
	case controlWaiting:
		id := n.id
		s.whenWaiting(func() { s.respond(&response{id: id}) })
		return
	}
	s.respond(&response{id: n.id, val: int64(val)})
}

// whenWaiting calls f once, while the child waits. The caller holds mu.
func (s *supervisor) whenWaiting(f func()) {
	once := sync.OnceFunc(f)
	s.onWait = append(s.onWait, once)
	if s.waiting {
		time.AfterFunc(afterWait, once)
	} else {
		time.AfterFunc(s.waitLimit, once)
	}
}

// pass lets the call run.
func (s *supervisor) pass(n *notification) {
	s.respond(&response{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

// respond answers a call. It has no effect if a signal ended the call or the
// thread is gone.
func (s *supervisor) respond(r *response) {
	ioctl(s.listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r))
}

// begin prepares for a run in dir. The target-th call fails with one of its
// errors, or no call if target is 0.
func (s *supervisor) begin(dir string, target, choice int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir, s.target, s.choice = dir, target, choice
	s.armed, s.aside, s.waiting, s.onWait = false, make(map[uint32]bool), false, nil
	s.made, s.counted, s.unlisted, s.failed = nil, 0, nil, nil
}

// result returns the calls that were made and the one that failed, or nil.
func (s *supervisor) result() ([]string, *failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made, s.failed
}

// unlistedProblems returns a problem for each call that is not in the table.
func (s *supervisor) unlistedProblems() (problems []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, what := range s.unlisted {
		problems = append(problems, what+" is not in the table of calls that are made to fail")
	}
	return problems
}

// flush runs the functions for a waiting child that have not run yet.
func (s *supervisor) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.onWait {
		f()
	}
}
