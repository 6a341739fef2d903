//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/interlock-go/interlock/internal/fault"
	"golang.org/x/sys/unix"
)

// The scenarios are here, and not in internal/systemtest, because some of them
// set what a lock remembers. This makes the lock take a certain path, so that
// the calls on that path fail.

// faults has the scenarios of fault_*_linux_test.go.
var faults = fault.Scenarios{}

func init() {
	children["faults"] = fault.Child(faults)
	for name, scenario := range openFileFaults {
		faults[name] = scenario
	}
}

// Every system call of the package fails once, in each place, with each of its
// errors. The result is an error that names the path and matches that of the
// call, or the call's failure does not matter. No lock, descriptor or file is
// left behind.
func TestFaults(t *testing.T) {
	modes := map[string]string{"local": "", "remote": "remote", "unmarked": "unmarked"}
	if mode := os.Getenv("INTERLOCK_TEST"); mode != "" {
		modes = map[string]string{mode: mode}
	}
	for mode, setting := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			fault.Explore(t, "faults", faults, "INTERLOCK_TEST="+setting)
		})
	}
}

// On a file system in user space, a signal can interrupt any call.
func TestInterruptedCallOfHoldersIsRepeated(t *testing.T) {
	fault.One(t, "faults", "holders", "openat", "O_PATH", unix.EINTR)
	fault.One(t, "faults", "holders", "fstat", "/lock", unix.EINTR)
}

func TestProbeSaysThatItCannotRemoveItsFile(t *testing.T) {
	fault.One(t, "faults", "probe", "unlinkat", "", unix.EACCES)
}

func TestProbeSaysWhatFailed(t *testing.T) {
	fault.One(t, "faults", "probe", "flock", "LOCK_EX", unix.EIO)
}

var bg = context.Background()

// cancelable is a context that could end, but does not.
var cancelable, _ = context.WithCancel(bg)

var openFileFaults = fault.Scenarios{
	"open file": func(c *fault.Case) {
		f := createWithFaults(c)
		c.Faults(func() {
			for i, lock := range []func() error{
				func() error { return Lock(bg, f) }, func() error { return RLock(bg, f) },
				func() error { return TryLock(f) }, func() error { return TryRLock(f) },
			} {
				if c.Check(lock(), f.Name(), ErrLocked) {
					c.Locked(f.Name(), i%2 == 0)
				}
				if err := Unlock(f); c.Check(err, f.Name()) || errors.Is(Unlock(f), nil) {
					c.Free(f.Name())
				}
			}
		})
		openFileWorks(c, f)
	},
	"open file, wait": func(c *fault.Case) {
		f := createWithFaults(c)
		c.Other("flock", f.Name(), "ex")
		c.Other("close-waiting", f.Name())
		c.Faults(func() {
			if c.Check(RLock(cancelable, f), f.Name()) {
				c.Locked(f.Name(), false)
			}
		})
		c.Other("close", f.Name())
		openFileWorks(c, f)
	},
	"open file, cancel": func(c *fault.Case) {
		f := createWithFaults(c)
		c.Other("flock", f.Name(), "ex")
		c.Faults(func() {
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			c.WhenWaiting(cancel)
			if c.Check(Lock(ctx, f), f.Name(), context.Canceled) {
				c.Errorf("the lock has two holders")
			}
		})
		c.Other("close", f.Name())
		openFileWorks(c, f)
	},

	"probe": func(c *fault.Case) {
		var err error
		c.Faults(func() {
			err = Probe(c.Dir)
			switch {
			case c.HasFailed("flock", unix.EWOULDBLOCK, unix.EACCES, unix.EDEADLK), c.HasFailed("fstat", unix.ENOENT, unix.ESTALE), c.HasFailed("newfstatat"):
				// It seems that another process had the lock for a moment, or
				// that the file was not at its path. Then Probe may say so.
				var pathErr *fs.PathError
				if err != nil && !(errors.As(err, &pathErr) && pathErr.Path == c.Dir) {
					c.Errorf("%v", err)
				}
			default:
				c.Check(err, c.Dir)
			}
		})
		for _, left := range c.Files() {
			if !c.HasFailed("unlinkat") || err == nil { // if it cannot be removed, Probe says so
				c.Errorf("a file was left behind: %s", left)
			}
			c.Must(os.Remove(c.Path(left)))
		}
		c.Must(Probe(c.Dir))
	},
	"holders": func(c *fault.Case) {
		path := c.Path("lock")
		c.Other("flock", path, "ex")
		c.Faults(func() {
			h, err := Holders(path)
			if c.Check(err, path) && (len(h) != 1 || h[0].PID != os.Getppid()) {
				c.Errorf("Holders = %v", h)
			}
		})
		h, err := Holders(path)
		if err != nil || len(h) != 1 {
			c.Errorf("Holders = %v, %v", h, err)
		}
	},
}

func createWithFaults(c *fault.Case) *os.File {
	f, err := os.Create(c.Path("file"))
	c.Must(err)
	return f
}

// openFileWorks checks that f can be locked, and closes it.
func openFileWorks(c *fault.Case, f *os.File) {
	c.Must(Unlock(f))
	c.Free(f.Name())
	c.Must(Lock(bg, f))
	c.Locked(f.Name(), true)
	c.Must(Unlock(f))
	c.Free(f.Name())
	c.Must(f.Close())
	c.Only("file")
}

// believe makes f believe that it was seen at its path a moment ago.
func believe(c *fault.Case, f *lockFile) {
	id, err := f.file.identity()
	c.Must(err)
	if f.file.marked {
		f.known, f.knownAt = id.changed, clock()
	}
}
