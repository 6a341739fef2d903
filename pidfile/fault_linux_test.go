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

// TestFaults has each system call of each scenario fail. A call of the package
// succeeds, or returns an error that names the path and matches the one of the
// system call. No lock, descriptor or new file is left.
func TestFaults(t *testing.T) { fault.Explore(t, "faults", faults) }

func TestFailedCreateLeavesNoNewFile(t *testing.T) {
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
	"already running": func(c *fault.Case) {
		path := c.Write("pid", fmt.Sprintln(os.Getppid()), 0o644)
		c.Other("flock", path, "ex")
		c.Faults(func() {
			f, err := Create(path)
			running, ok := err.(*RunningError)
			switch {
			case err == nil:
				c.Errorf("created twice")
				f.Close()
			case ok && running.PID != os.Getppid() && running.PID != 0:
				c.Errorf("running with PID %d", running.PID)
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
			if claimedLocked(c, err) {
				// It is running, but not with that PID: that
				// process is gone.
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
		if _, statErr := os.Lstat(path); statErr == nil && err == nil && !claimedGone(c) {
			c.Errorf("the file was not removed, without an error")
		}
		c.Free(path)
		worksAt(c, path)
	},
}

// claimedLocked reports whether the fault claimed that another process holds
// the lock. EACCES is such a claim unless the package took it for a denial.
func claimedLocked(c *fault.Case, err error) bool {
	return c.HasFailed("flock", unix.EWOULDBLOCK, unix.EDEADLK) || c.HasFailed("flock", unix.EACCES) && !errors.Is(err, unix.EACCES)
}

// claimedGone reports whether the fault claimed that the file is no longer at
// its path. Then the package does not remove the file at its path.
func claimedGone(c *fault.Case) bool {
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
					c.Errorf("contains %q, %v", data, err)
				}
			})
			err := f.Close()
			var pathErr *fs.PathError
			if errors.As(err, &pathErr) && pathErr.Path == c.Path("pid") { // absolute, also for a relative path
				path = c.Path("pid")
			}
			closed = c.Check(err, path)
		}
	})
	for _, name := range c.Files() {
		info, statErr := os.Lstat(c.Path(name))
		c.Must(statErr)
		switch {
		case closed && claimedGone(c):
		case err == nil && !closed: // Close returned an error.
		case err != nil && before > 0: // It was there before.
		case err != nil && info.Size() == 0 && (c.HasFailed("fstat") || c.HasFailed("newfstatat") || c.HasFailed("flock")):
			// The package created it, but does not know that it is
			// the file at its path, or could not lock it. It may be
			// the file of another process by now. The next Create
			// takes over an empty file, which a crash leaves, too.
		default:
			c.Errorf("there is still a file of %d bytes after the error %v", info.Size(), err)
		}
	}
	c.Free(path)
	worksAt(c, path)
}

// worksAt fails unless the file can be created, read and removed.
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
