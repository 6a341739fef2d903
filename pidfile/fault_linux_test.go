package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/fault"
	"golang.org/x/sys/unix"
)

func init() { children["faults"] = fault.Child(faults) }

// Every system call of the package fails once, at each place, with each of its errors: then an error that
// names the path and matches that of the call comes out, or nothing is amiss; and nothing is left locked, open or half-made.
func TestFaults(t *testing.T) { fault.Explore(t, "faults", faults) }

// What has been wrong.

func TestCreateThatFailsLeavesNoNewFile(t *testing.T) {
	fault.One(t, "faults", "create", "pread64", "", unix.EIO)
}

var faults = fault.Scenarios{
	"create": func(c *fault.Case) { createWithFaults(c, c.Path("pid")) },
	"create, relative": func(c *fault.Case) {
		wd, err := os.Getwd()
		c.Must(err)
		defer os.Chdir(wd)
		c.Must(os.Chdir(c.Dir))
		createWithFaults(c, "pid")
	},
	"take over": func(c *fault.Case) {
		createWithFaults(c, c.Write("pid", "99999999\n", 0o644))
	},
	"runs already": func(c *fault.Case) {
		path := c.Write("pid", fmt.Sprintln(os.Getppid()), 0o644)
		c.Other("flock", path, "ex")
		c.Faults(func() {
			f, err := Create(path)
			running, ok := err.(*RunningError)
			switch {
			case err == nil:
				c.Errorf("it runs twice")
				f.Close()
			case ok && running.PID != os.Getppid() && running.PID != 0:
				c.Errorf("runs with PID %d", running.PID)
			case !ok:
				c.Check(err, path)
			}
		})
		c.Other("close", path)
		worksAt(c, path)
	},
	"read": func(c *fault.Case) {
		path := c.Write("pid", "99999999\n", 0o644)
		c.Faults(func() {
			pid, running, err := Read(path)
			if lockedForAMoment(c, err) { // then it runs, but with another PID, for that process is gone
				if !running || pid != 0 || !errors.Is(err, errOther) {
					c.Errorf("%d, %t, %v", pid, running, err)
				}
			} else if c.Check(err, path) && (pid != 99999999 || running) {
				c.Errorf("%d, %t", pid, running)
			}
		})
		worksAt(c, path)
	},
	"read, running": func(c *fault.Case) {
		path := c.Write("pid", fmt.Sprintln(os.Getppid()), 0o644)
		c.Other("flock", path, "ex")
		c.Faults(func() {
			pid, running, err := Read(path)
			if c.Check(err, path) && (pid != os.Getppid() || !running) {
				c.Errorf("%d, %t", pid, running)
			}
		})
		c.Other("close", path)
		worksAt(c, path)
	},
	"close": func(c *fault.Case) {
		path := c.Path("pid")
		f, err := Create(path)
		c.Must(err)
		c.Faults(func() { err = f.Close(); c.Check(err, path) })
		if _, statErr := os.Lstat(path); statErr == nil && err == nil && !saidToBeGone(c) {
			c.Errorf("there is a file in spite of no error")
		}
		c.Free(path)
		worksAt(c, path)
	},
}

// lockedForAMoment reports whether the failure said that somebody else had the lock, as EACCES does where it was not taken for
// a denial.
func lockedForAMoment(c *fault.Case, err error) bool {
	return c.HasFailed("flock", unix.EWOULDBLOCK, unix.EDEADLK) || c.HasFailed("flock", unix.EACCES) && !errors.Is(err, unix.EACCES)
}

// saidToBeGone reports whether the failure said that the file is gone. Then it is not removed, for what is at its path would be another.
func saidToBeGone(c *fault.Case) bool {
	return c.HasFailed("fstat", unix.ENOENT, unix.ESTALE) || c.HasFailed("newfstatat", unix.ENOENT)
}

func createWithFaults(c *fault.Case, path string) {
	before := len(c.Files())
	var err error
	closed := false
	c.Faults(func() {
		var f *File
		if f, err = Create(path); c.Check(err, path, interlock.ErrLocked) {
			c.Locked(path, true)
			c.Aside(func() {
				if data, err := os.ReadFile(path); err != nil || string(data) != fmt.Sprintln(os.Getpid()) {
					c.Errorf("holds %q, %v", data, err)
				}
			})
			err := f.Close()
			var pathErr *fs.PathError
			if errors.As(err, &pathErr) && pathErr.Path == c.Path("pid") { // wherever the process is by now
				path = c.Path("pid")
			}
			closed = c.Check(err, path)
		}
	})
	for _, name := range c.Files() {
		info, statErr := os.Lstat(c.Path(name))
		c.Must(statErr)
		switch {
		case closed && saidToBeGone(c):
		case err == nil && !closed: // an error of Close has told that
		case err != nil && before > 0: // it was there already
		case err != nil && info.Size() == 0 && (c.HasFailed("fstat") || c.HasFailed("newfstatat") || c.HasFailed("flock")):
			// It was made, but it is not known to be the file at the path, or not locked: so it could be the
			// file of another by now, and must not be removed. To be empty is what a crash leaves too, and it is taken over.
		default:
			c.Errorf("there is still a file of %d bytes after the error %v", info.Size(), err)
		}
	}
	c.Free(path)
	worksAt(c, path)
}

// worksAt looks whether the file can be made, and is removed then.
func worksAt(c *fault.Case, path string) {
	f, err := Create(path)
	c.Must(err)
	c.Locked(path, true)
	if pid, running, err := Read(path); pid != os.Getpid() || !running || err != nil {
		c.Errorf("%d, %t, %v", pid, running, err)
	}
	c.Must(f.Close())
	c.Only()
}
