package fault

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// Scenarios are functions by name. A scenario prepares a case, lets one call
// fail in [Case.Faults], and checks the outcome.
type Scenarios map[string]func(c *Case)

// A Case is one run of a scenario.
type Case struct {
	Dir     string // a directory for this run; empty at first
	in      *bufio.Scanner
	waiting sync.WaitGroup // goroutines that WhenWaiting started

	mu       sync.Mutex // guards problems
	problems []string
}

// socketFD is the descriptor of the socket by which the child sends the
// listener of its filter to the parent.
const socketFD = 3

// Child returns the function of a process that runs scenarios.
func Child(scenarios Scenarios) proc.Func {
	return func([]string) {
		// The runtime's poller and the goroutine that receives signals start
		// once and stay. Start them now, so that they do not count as leaks.
		time.Sleep(time.Microsecond)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGURG)
		signal.Stop(signals)
		// The garbage collector would close forgotten files and hide the
		// mistake.
		debug.SetGCPercent(-1)

		// From here on, a write to standard output or error blocks until the
		// parent has the listener.
		listener, err := listen()
		if err != nil {
			unix.Sendmsg(socketFD, []byte(err.Error()), nil, nil, 0)
			return
		}
		if err := unix.Sendmsg(socketFD, []byte("listens"), unix.UnixRights(listener), nil, 0); err != nil {
			os.Exit(1) // a panic would print and block
		}
		unix.Close(listener)
		unix.Close(socketFD)
		fmt.Println("ready")
		in := bufio.NewScanner(os.Stdin)
		for runs := 1; in.Scan(); runs++ {
			name, dir, _ := strings.Cut(in.Text(), "\t")
			c := &Case{Dir: dir, in: in}
			c.run(scenarios[name])
			report, err := json.Marshal(c.problems)
			if err != nil {
				panic(err)
			}
			fmt.Println("done", string(report))
			if runs%200 == 0 {
				runtime.GC()
			}
		}
	}
}

func (c *Case) run(scenario func(*Case)) {
	defer func() {
		if p := recover(); p != nil {
			c.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	scenario(c)
}

// Errorf reports a problem.
func (c *Case) Errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// Must ends the run and reports err, unless err is nil.
func (c *Case) Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Path returns the path of a file in the directory of this run.
func (c *Case) Path(name string) string { return filepath.Join(c.Dir, name) }

// Write creates a file with the given contents and returns its path.
func (c *Case) Write(name, contents string, perm fs.FileMode) string {
	c.Must(os.WriteFile(c.Path(name), []byte(contents), perm))
	return c.Path(name)
}

// Faults calls f. One of the system calls of f fails, except in the first run.
// Then Faults waits for the goroutines that f started, and reports those that
// do not end.
func (c *Case) Faults(f func()) {
	before := runtime.NumGoroutine()
	control(controlBegin)
	defer func() {
		c.waiting.Wait()
		for begin := time.Now(); runtime.NumGoroutine() > before; time.Sleep(20 * time.Microsecond) {
			if time.Since(begin) > 5*time.Second {
				stacks := make([]byte, 1<<16)
				c.Errorf("goroutines that do not end:\n%s", stacks[:runtime.Stack(stacks, true)])
				break
			}
		}
		if left := control(controlEnd); left != 0 {
			unix.Close(left)
		}
	}()
	f()
}

// Aside calls f. System calls of f do not fail, except those of goroutines that
// f starts.
func (c *Case) Aside(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	control(controlAside)
	defer control(controlBack)
	f()
}

// Try calls f and returns its error. If f panics with an error that is not a
// [runtime.Error], Try returns that error.
func (c *Case) Try(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			var ok bool
			if err, ok = p.(error); !ok {
				panic(p)
			}
			if _, ok := err.(runtime.Error); ok {
				panic(p)
			}
		}
	}()
	return f()
}

// Failed returns the name and the error of the call that failed. If none has
// failed so far, it returns "" and 0.
func (c *Case) Failed() (name string, errno syscall.Errno) {
	v := control(controlFailed)
	if v == 0 {
		return "", 0
	}
	return calls[int32(v>>16)].name, syscall.Errno(v & 0xffff)
}

// HasFailed reports whether a call with the given name has failed. If errnos
// are given, the call must have failed with one of them.
func (c *Case) HasFailed(name string, errnos ...syscall.Errno) bool {
	failed, errno := c.Failed()
	return failed == name && (len(errnos) == 0 || slices.Contains(errnos, errno))
}

// Check reports whether err is nil. Otherwise err must be one of the others, or
// an [*fs.PathError] with the given path that matches the error of the failed
// call or one of the others. Check reports a problem if it is neither. It also
// does so if err says that a signal interrupted a call that can be repeated.
func (c *Case) Check(err error, path string, others ...error) bool {
	if err == nil {
		return true
	}
	for _, other := range others {
		if err == other {
			return false
		}
	}
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != path {
		c.Errorf("the error does not name %s: %#v: %v", path, err, err)
	}
	name, errno := c.Failed()
	if errno != 0 && errors.Is(err, errno) && (errno != syscall.EINTR || name == "close") {
		return false
	}
	for _, other := range others {
		if errors.Is(err, other) {
			return false
		}
	}
	c.Errorf("%s failed with %v, but the error does not match that: %v", name, errno, err)
	return false
}

// Locked reports a problem unless the file at path is locked. If exclusive is
// set, the lock must be an exclusive one.
func (c *Case) Locked(path string, exclusive bool) {
	c.Aside(func() {
		if got := flockable(path, exclusive); got != syscall.EWOULDBLOCK {
			c.Errorf("%s is not locked (exclusive: %t): %v", path, exclusive, got)
		}
	})
}

// Free reports a problem if the file at path exists and is locked.
func (c *Case) Free(path string) {
	c.Aside(func() {
		if got := flockable(path, false); got != nil && got != syscall.ENOENT {
			c.Errorf("%s is locked: %v", path, got)
		}
	})
}

// flockable locks the file at path for an instant, shared or exclusive, and
// returns the error.
func flockable(path string, shared bool) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	how := unix.LOCK_EX
	if shared {
		how = unix.LOCK_SH
	}
	return unix.Flock(fd, how|unix.LOCK_NB)
}

// Other lets another process lock or unlock a file. See [otherProcess] for the
// commands.
func (c *Case) Other(command ...string) {
	line, err := json.Marshal(command)
	c.Must(err)
	fmt.Println("other", string(line))
	if c.in.Scan(); c.in.Text() != "ok" {
		panic(c.in.Text())
	}
}

// WhenWaiting calls f on another goroutine while the run waits, or after a
// short time if the run does not wait.
func (c *Case) WhenWaiting(f func()) {
	c.waiting.Add(1)
	go func() {
		defer c.waiting.Done()
		control(controlWaiting)
		f()
	}()
}

// Files returns the names of all files in the directory of this run.
func (c *Case) Files() (names []string) {
	entries, err := os.ReadDir(c.Dir)
	c.Must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Only reports a problem for each file whose name is not one of names.
func (c *Case) Only(names ...string) {
	for _, name := range c.Files() {
		if !slices.Contains(names, name) {
			c.Errorf("a file was left behind: %s", name)
		}
	}
}
