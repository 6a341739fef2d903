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

// Scenarios are pieces of code, by name, in which calls fail, between those that prepare for it and those that look
// what has come of it.
type Scenarios map[string]func(c *Case)

// A Case is one run of a scenario.
type Case struct {
	Dir      string // a directory for this run, empty
	in       *bufio.Scanner
	waiting  sync.WaitGroup // what WhenWaiting has started
	mu       sync.Mutex
	problems []string
}

// socketFD is where the child finds the socket by which it passes on its listener.
const socketFD = 3

// Child is the function of the process that runs scenarios.
func Child(scenarios Scenarios) proc.Func {
	return func([]string) {
		// What is done once in a process is no leak: the poller, and the goroutine that receives signals.
		time.Sleep(time.Microsecond)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGURG)
		signal.Stop(signals)
		// Files that are forgotten must be seen to be open still.
		debug.SetGCPercent(-1)

		// To print anything has to wait from here on until the parent has the listener.
		listener, err := listen()
		if err != nil {
			unix.Sendmsg(socketFD, []byte(err.Error()), nil, nil, 0)
			return
		}
		if err := unix.Sendmsg(socketFD, []byte("listens"), unix.UnixRights(listener), nil, 0); err != nil {
			os.Exit(1) // panic would print
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

// Errorf reports that something is wrong.
func (c *Case) Errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// Must reports err, unless it is nil, and ends the run.
func (c *Case) Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Path is the path of a file of this run.
func (c *Case) Path(name string) string { return filepath.Join(c.Dir, name) }

// Write makes a file with these contents.
func (c *Case) Write(name, contents string, perm fs.FileMode) string {
	c.Must(os.WriteFile(c.Path(name), []byte(contents), perm))
	return c.Path(name)
}

// Faults calls f, during which one of all the calls of this run fails. It waits for the goroutines that f leaves, and
// reports those that do not end.
func (c *Case) Faults(f func()) {
	before := runtime.NumGoroutine()
	mark(markBegin)
	defer func() {
		c.waiting.Wait()
		for begin := time.Now(); runtime.NumGoroutine() > before; time.Sleep(20 * time.Microsecond) {
			if time.Since(begin) > 5*time.Second {
				stacks := make([]byte, 1<<16)
				c.Errorf("goroutines left:\n%s", stacks[:runtime.Stack(stacks, true)])
				break
			}
		}
		if left := mark(markEnd); left != 0 {
			unix.Close(left)
		}
	}()
	f()
}

// Aside calls f, whose calls do not fail, unless they are made by goroutines that it starts.
func (c *Case) Aside(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	mark(markAside)
	defer mark(markBack)
	f()
}

// Try calls f and returns its error, or the one that it panics with.
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

// Failed returns the name of the call that has failed so far, and its error, or 0.
func (c *Case) Failed() (name string, errno syscall.Errno) {
	v := mark(markFailed)
	if v == 0 {
		return "", 0
	}
	return calls[int32(v>>16)].name, syscall.Errno(v & 0xffff)
}

// HasFailed reports whether a call of that name has failed, with one of those errors if there are any.
func (c *Case) HasFailed(name string, errnos ...syscall.Errno) bool {
	failed, errno := c.Failed()
	return failed == name && (len(errnos) == 0 || slices.Contains(errnos, errno))
}

// Check looks whether err is as it should be: nil, or an [*fs.PathError] about path that matches what the call has failed
// with, or one of the others. It reports whether it is nil.
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
		c.Errorf("not an error of %s: %#v: %v", path, err, err)
	}
	name, errno := c.Failed()
	if errno != 0 && errors.Is(err, errno) {
		return false
	}
	for _, other := range others {
		if errors.Is(err, other) {
			return false
		}
	}
	c.Errorf("%s failed with %v, and the error does not match that: %v", name, errno, err)
	return false
}

// Locked looks whether somebody has an exclusive lock on the file at path, or also a shared one.
func (c *Case) Locked(path string, exclusive bool) {
	c.Aside(func() {
		if got := flockable(path, exclusive); got != syscall.EWOULDBLOCK {
			c.Errorf("%s is not locked as it should be: %v", path, got)
		}
	})
}

// Free looks whether nobody has a lock on the file at path, if there is one.
func (c *Case) Free(path string) {
	c.Aside(func() {
		if got := flockable(path, false); got != nil && got != syscall.ENOENT {
			c.Errorf("%s is locked: %v", path, got)
		}
	})
}

// flockable tries to lock a file: for reading if only an exclusive lock is to be in the way.
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

// Other makes another process do something, see [other].
func (c *Case) Other(command ...string) {
	line, err := json.Marshal(command)
	c.Must(err)
	fmt.Println("other", string(line))
	if c.in.Scan(); c.in.Text() != "ok" {
		panic(c.in.Text())
	}
}

// WhenWaiting calls f, on another goroutine, when the run has begun to wait.
func (c *Case) WhenWaiting(f func()) {
	c.waiting.Go(func() {
		mark(markWaiting)
		f()
	})
}

// Files are the names of what is in the directory.
func (c *Case) Files() (names []string) {
	entries, err := os.ReadDir(c.Dir)
	c.Must(err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Only looks whether there are no other files than those with these names, of which some may be missing.
func (c *Case) Only(names ...string) {
	for _, name := range c.Files() {
		if !slices.Contains(names, name) {
			c.Errorf("left behind: %s", name)
		}
	}
}
