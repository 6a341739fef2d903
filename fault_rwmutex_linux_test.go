//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/fault"
	"golang.org/x/sys/unix"
)

func init() {
	for name, scenario := range mutexFaults {
		faults[name] = scenario
	}
}

// A call that a signal interrupts does not make a local file system look like a
// remote one.
func TestInterruptedCallDoesNotMakeFileSystemRemote(t *testing.T) {
	fault.One(t, "faults", "new", "fstatfs", "", unix.EINTR)
}

// A call that a signal interrupts is repeated. On file systems in user space,
// fstat(2) and lstat(2) can be interrupted.
func TestInterruptedCallIsRepeated(t *testing.T) {
	for _, call := range []string{"fstat", "newfstatat"} {
		fault.One(t, "faults", "new", call, "", unix.EINTR)
		if os.Getenv("INTERLOCK_TEST") == "remote" {
			fault.One(t, "faults", "lock", call, "", unix.EINTR)
		}
	}
}

// notInterrupted reports it as a mistake if err says that a call was
// interrupted.
func notInterrupted(c *fault.Case, err error) {
	if errors.Is(err, unix.EINTR) && (c.HasFailed("fstat", unix.EINTR) || c.HasFailed("newfstatat", unix.EINTR)) {
		c.Errorf("a signal made a call fail: %v", err)
	}
}

// A process that cannot leave the gate does not stop others.
func TestGateThatCannotBeLeftStopsNoProcess(t *testing.T) {
	needKernelWait(t)
	if !local(newMutex(t, lockPath(t))) {
		t.Skip("there is no byte to unlock")
	}
	fault.One(t, "faults", "leave the gate", "fcntl", "F_OFD_SETLK)", unix.ENOLCK)
	fault.One(t, "faults", "leave its own gate", "fcntl", "F_OFD_SETLK)", unix.ENOLCK)
}

var mutexFaults = fault.Scenarios{
	"new": func(c *fault.Case) { newWithFaults(c, c.Path("lock")) },
	"new, existing": func(c *fault.Case) {
		newWithFaults(c, c.Write("lock", "", 0o644))
	},
	"new, relative": func(c *fault.Case) {
		wd, err := os.Getwd()
		c.Must(err)
		defer os.Chdir(wd)
		c.Must(os.Chdir(c.Dir))
		newWithFaults(c, "lock")
	},
	"lock": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() { lockWithFaults(c, m, bg) })
		mutexWorks(c, m)
	},
	"lock, again": func(c *fault.Case) { // the shortest way
		m := mutexWithFaults(c)
		believe(c, m.file)
		c.Faults(func() { lockWithFaults(c, m, bg) })
		mutexWorks(c, m)
	},
	"lock and panic": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() {
			if c.Check(c.Try(func() error { m.Lock(); return nil }), m.Path()) {
				c.Locked(m.Path(), true)
				m.Unlock()
			}
		})
		mutexWorks(c, m)
	},
	"rlock": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() {
			one := c.Check(m.RLockContext(bg), m.Path())
			m.mu.Lock()
			m.file.clear[shared] = never // so that it asks again whether a process waits
			m.mu.Unlock()
			two := c.Check(m.RLockContext(bg), m.Path())
			if one || two {
				c.Locked(m.Path(), false)
			}
			if one {
				m.RUnlock()
			}
			if one && two {
				c.Locked(m.Path(), false)
			}
			if two {
				m.RUnlock()
			}
		})
		mutexWorks(c, m)
	},
	"try": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() {
			if c.Check(m.TryLockContext(bg), m.Path(), ErrLocked) {
				c.Locked(m.Path(), true)
				m.Unlock()
			}
		})
		mutexWorks(c, m)
	},
	"try and panic": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() {
			got := false
			c.Check(c.Try(func() error { got = m.TryRLock(); return nil }), m.Path())
			if got {
				c.Locked(m.Path(), false)
				m.RUnlock()
			}
		})
		mutexWorks(c, m)
	},
	"try, held": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "sh")
		c.Faults(func() {
			if c.Check(m.TryLockContext(bg), m.Path(), ErrLocked) {
				c.Errorf("a writer holds the lock beside a reader")
			}
		})
		c.Other("close", m.Path())
		mutexWorks(c, m)
	},
	"wait":                         func(c *fault.Case) { waitWithFaults(c, exclusive, cancelable) },
	"wait for reading":             func(c *fault.Case) { waitWithFaults(c, shared, cancelable) },
	"wait without a way to cancel": func(c *fault.Case) { waitWithFaults(c, exclusive, bg) },
	"wait at the gate": func(c *fault.Case) {
		m := mutexWithFaults(c)
		gate := standAtGate(c, m)
		c.Other("close-waiting", gate)
		c.Faults(func() { lockWithFaults(c, m, cancelable) })
		c.Other("close", gate)
		mutexWorks(c, m)
	},
	"cancel":          func(c *fault.Case) { cancelWithFaults(c, exclusive) },
	"cancel, reading": func(c *fault.Case) { cancelWithFaults(c, shared) },
	"cancel at the gate": func(c *fault.Case) {
		m := mutexWithFaults(c)
		gate := standAtGate(c, m)
		c.Other("flock", m.Path(), "sh")
		c.Faults(func() { waitInVainWithFaults(c, m, exclusive) })
		c.Other("close", gate)
		c.Other("close", m.Path())
		mutexWorks(c, m)
	},
	"wait behind readers of this process": func(c *fault.Case) {
		m := mutexWithFaults(c)
		m.RLock()
		c.Faults(func() {
			written := start(func() error { return m.LockContext(cancelable) })
			for waitersOf(m) == 0 && len(written) == 0 {
				time.Sleep(10 * time.Microsecond)
			}
			time.Sleep(100 * time.Microsecond) // so that it stands at the gate
			m.RUnlock()
			if c.Check(<-written, m.Path()) {
				c.Locked(m.Path(), true)
				m.Unlock()
			}
		})
		mutexWorks(c, m)
	},
	"hand on within this process": func(c *fault.Case) {
		m := mutexWithFaults(c)
		m.Lock()
		c.Faults(func() {
			read := start(func() error {
				if c.Check(m.RLockContext(cancelable), m.Path()) {
					c.Locked(m.Path(), false)
					m.RUnlock()
				}
				return nil
			})
			written := start(func() error {
				lockWithFaults(c, m, cancelable)
				return nil
			})
			for waitersOf(m)+len(read)+len(written) < 2 {
				time.Sleep(10 * time.Microsecond)
			}
			m.Unlock()
			<-read
			<-written
		})
		mutexWorks(c, m)
	},
	"replaced": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Must(os.Rename(c.Write("lock.new", "", 0o600), m.Path()))
		c.Faults(func() { lockReplacedWithFaults(c, m, bg) })
		mutexWorks(c, m)
	},
	"renamed": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Must(os.Rename(m.Path(), c.Path("lock.old")))
		c.Faults(func() { lockReplacedWithFaults(c, m, bg) })
		mutexWorks(c, m)
	},
	"replaced while waiting": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Faults(func() {
			c.WhenWaiting(func() {
				c.Aside(func() { os.Rename(c.Write("lock.new", "", 0o600), m.Path()) })
				c.Other("close", m.Path())
			})
			lockReplacedWithFaults(c, m, cancelable)
		})
		mutexWorks(c, m)
	},
	"close": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() { c.Check(m.Close(), m.Path()) })
		if err := m.Close(); !errors.Is(err, fs.ErrClosed) {
			c.Errorf("the second Close = %v", err)
		}
		onlyLockFiles(c)
	},
	"leave the gate": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Other("close-waiting", m.Path())
		c.Faults(func() {
			if c.Check(m.LockContext(bg), m.Path()) {
				m.Unlock()
			}
		})
		c.Other("close", m.Path())
		other := mutexWithFaults(c)
		if other.TryRLock() {
			other.RUnlock()
		} else {
			c.Errorf("TryRLock failed, although no process holds the lock or waits for it")
		}
		other.Close()
		mutexWorks(c, m)
	},
	"leave its own gate": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Other("close-waiting", m.Path())
		var limit unix.Rlimit
		c.Must(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		low := limit
		low.Cur = 3
		c.Faults(func() {
			c.Must(unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
			if c.Check(m.LockContext(bg), m.Path(), unix.EMFILE) {
				m.Unlock()
			}
			c.Must(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		})
		c.Other("close", m.Path())
		other := mutexWithFaults(c)
		if other.TryLock() {
			done := start(func() error { m.Lock(); m.Unlock(); return nil }) // m does not stop itself, either
			time.Sleep(time.Millisecond)
			other.Unlock()
			<-done
		} else {
			c.Errorf("TryLock failed, although no process holds the lock or waits for it")
		}
		other.Close()
		mutexWorks(c, m)
	},

	"reentrant": func(c *fault.Case) {
		path := c.Path("lock")
		var m *FileRMutex
		c.Faults(func() {
			var err error
			if m, err = NewFileRMutex(path); !c.Check(err, path) {
				return
			}
			err = m.Do(bg, func(ctx context.Context) error {
				c.Locked(path, true)
				return m.Do(ctx, func(context.Context) error { return nil })
			})
			c.Check(err, path)
			c.Free(path)
			err = m.Close()
			c.Check(err, path)
		})
		m, err := NewFileRMutex(path)
		c.Must(err)
		c.Must(m.Do(bg, func(context.Context) error { c.Locked(path, true); return nil }))
		c.Must(m.Close())
		onlyLockFiles(c)
	},
}

func newWithFaults(c *fault.Case, path string) {
	c.Faults(func() {
		m, err := NewFileRWMutex(path)
		notInterrupted(c, err)
		if c.Check(err, path) {
			if len(localFileSystems) > 0 && !local(m) && c.HasFailed("fstatfs", unix.EINTR) {
				c.Errorf("a signal made a local file system a remote one")
			}
			c.Check(m.Close(), path)
		}
	})
	m, err := NewFileRWMutex(path)
	c.Must(err)
	mutexWorks(c, m)
}

func mutexWithFaults(c *fault.Case) *FileRWMutex {
	m, err := NewFileRWMutex(c.Path("lock"))
	c.Must(err)
	return m
}

func lockWithFaults(c *fault.Case, m *FileRWMutex, ctx context.Context) {
	err := m.LockContext(ctx)
	notInterrupted(c, err)
	if c.Check(err, m.Path()) {
		c.Locked(m.Path(), true)
		m.Unlock()
	}
}

// lockReplacedWithFaults is lockWithFaults for a file that is no longer at its
// path.
func lockReplacedWithFaults(c *fault.Case, m *FileRWMutex, ctx context.Context) {
	if c.Check(m.LockContext(ctx), m.Path()) {
		// A process that may not look at the path gave up the right to. It
		// stays with the file that it has open, on purpose.
		if !c.HasFailed("newfstatat", unix.EACCES) {
			c.Locked(m.Path(), true)
		}
		m.Unlock()
	}
}

func waitWithFaults(c *fault.Case, mode mode, ctx context.Context) {
	m := mutexWithFaults(c)
	c.Other("flock", m.Path(), "ex")
	c.Other("close-waiting", m.Path())
	c.Faults(func() {
		if c.Check(m.lock(ctx, mode, false), m.Path()) {
			c.Locked(m.Path(), mode == exclusive)
			m.unlock(mode)
		}
	})
	c.Other("close", m.Path())
	mutexWorks(c, m)
}

func cancelWithFaults(c *fault.Case, mode mode) {
	m := mutexWithFaults(c)
	c.Other("flock", m.Path(), "ex")
	c.Faults(func() { waitInVainWithFaults(c, m, mode) })
	c.Other("close", m.Path())
	mutexWorks(c, m)
}

// waitInVainWithFaults waits for a lock that is held, until the wait is
// canceled.
func waitInVainWithFaults(c *fault.Case, m *FileRWMutex, mode mode) {
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	c.WhenWaiting(cancel)
	if c.Check(m.lock(ctx, mode, false), m.Path(), context.Canceled) {
		c.Errorf("the lock has two holders")
	}
}

// standAtGate makes another process stand at the gate of m, and returns the
// path of the file that has the gate.
func standAtGate(c *fault.Case, m *FileRWMutex) (path string) {
	path, at := m.Path(), int64(farByte)
	if !m.file.file.bytesApart() {
		path, at = path+gateSuffix, siblingByte(m.file.file)
	}
	c.Other("byte", path, strconv.FormatInt(at, 10), "ex")
	return path
}

// mutexWorks checks that m is as good as new, and closes it.
func mutexWorks(c *fault.Case, m *FileRWMutex) {
	c.Free(m.Path())
	c.Must(m.LockContext(bg))
	c.Locked(m.Path(), true)
	m.Unlock()
	c.Free(m.Path())
	c.Must(m.RLockContext(bg))
	c.Locked(m.Path(), false)
	m.RUnlock()
	c.Must(m.Close())
	onlyLockFiles(c)
}

// onlyLockFiles reports files other than those of a FileRWMutex.
func onlyLockFiles(c *fault.Case) {
	names := []string{"lock", "lock.old"}
	f, err := openFile(c.Path("lock"), true, 0o600)
	c.Must(err)
	f.close()
	// A file system whose kind the kernel does not tell counts as remote.
	if !f.local || c.HasFailed("fstatfs") {
		names = append(names, "lock.gate")
	}
	c.Only(names...)
}
