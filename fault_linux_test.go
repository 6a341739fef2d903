//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/fault"
	"golang.org/x/sys/unix"
)

func init() { children["faults"] = fault.Child(faults) }

// Every system call of the package fails once, at each place, with each of its errors: then an error that
// names the path and matches that of the call comes out, or nothing is amiss; and nothing is left held, open or half-made.
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

// What has been wrong.

func TestASignalDoesNotMakeALocalFileSystemARemoteOne(t *testing.T) {
	fault.One(t, "faults", "new", "fstatfs", "", unix.EINTR)
}

func TestProbeSaysThatItsFileCannotBeRemoved(t *testing.T) {
	fault.One(t, "faults", "probe", "unlinkat", "", unix.EACCES)
}

func TestProbeSaysWhatFailed(t *testing.T) {
	fault.One(t, "faults", "probe", "flock", "LOCK_EX", unix.EIO)
}

var faults = fault.Scenarios{
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
	"lock, again": func(c *fault.Case) { // by the shortest way
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
			m.checked = never // to look again whether somebody waits
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
				c.Errorf("locked beside a reader")
			}
		})
		c.Other("close", m.Path())
		mutexWorks(c, m)
	},
	"wait": func(c *fault.Case) { waitWithFaults(c, exclusive, true) },
	"wait, without a way to end it": func(c *fault.Case) {
		waitWithFaults(c, exclusive, false)
	},
	"wait for reading": func(c *fault.Case) { waitWithFaults(c, shared, true) },
	"wait at the gate": func(c *fault.Case) {
		m := mutexWithFaults(c)
		gate := standAtGate(c, m)
		c.Other("close-waiting", gate)
		c.Faults(func() { lockWithFaults(c, m, cancellable) })
		c.Other("close", gate)
		mutexWorks(c, m)
	},
	"first wait of the process": func(c *fault.Case) {
		was := unlockable.Swap(0)
		waitWithFaults(c, exclusive, true)
		if now := unlockable.Swap(was); now != 0 {
			unix.Close(int(now - 1))
		}
	},
	"cancel": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Faults(func() { cancelWithFaults(c, m, exclusive) })
		c.Other("close", m.Path())
		mutexWorks(c, m)
	},
	"cancel, reading": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Faults(func() { cancelWithFaults(c, m, shared) })
		c.Other("close", m.Path())
		mutexWorks(c, m)
	},
	"cancel at the gate": func(c *fault.Case) {
		m := mutexWithFaults(c)
		gate := standAtGate(c, m)
		c.Other("flock", m.Path(), "sh")
		c.Faults(func() { cancelWithFaults(c, m, exclusive) })
		c.Other("close", gate)
		c.Other("close", m.Path())
		mutexWorks(c, m)
	},
	"wait behind readers of this process": func(c *fault.Case) {
		m := mutexWithFaults(c)
		m.RLock()
		c.Faults(func() {
			written := start(func() error { return m.LockContext(cancellable) })
			for waitersOf(m) == 0 && len(written) == 0 {
				time.Sleep(10 * time.Microsecond)
			}
			time.Sleep(100 * time.Microsecond) // to take the gate
			m.RUnlock()
			if c.Check(<-written, m.Path()) {
				c.Locked(m.Path(), true)
				m.Unlock()
			}
		})
		mutexWorks(c, m)
	},
	"hand over to this process": func(c *fault.Case) {
		m := mutexWithFaults(c)
		m.Lock()
		c.Faults(func() {
			read := start(func() error {
				if c.Check(m.RLockContext(cancellable), m.Path()) {
					c.Locked(m.Path(), false)
					m.RUnlock()
				}
				return nil
			})
			written := start(func() error {
				lockWithFaults(c, m, cancellable)
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
		c.Faults(func() { lockMovedWithFaults(c, m, bg) })
		mutexWorks(c, m)
	},
	"renamed": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Must(os.Rename(m.Path(), c.Path("lock.old")))
		c.Faults(func() {
			lockMovedWithFaults(c, m, bg)
		})
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
			lockMovedWithFaults(c, m, cancellable)
		})
		mutexWorks(c, m)
	},
	"close": func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Faults(func() { c.Check(m.Close(), m.Path()) })
		if err := m.Close(); !errors.Is(err, fs.ErrClosed) {
			c.Errorf("closed twice: %v", err)
		}
		onlyLock(c)
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
		onlyLock(c)
	},

	"plain": func(c *fault.Case) {
		f := openWithFaults(c)
		c.Faults(func() {
			for mode, lock := range []func() error{
				func() error { return Lock(bg, f) }, func() error { return RLock(bg, f) },
				func() error { return TryLock(f) }, func() error { return TryRLock(f) },
			} {
				if c.Check(lock(), f.Name(), ErrLocked) {
					c.Locked(f.Name(), mode%2 == 0)
				}
				if err := Unlock(f); c.Check(err, f.Name()) || errors.Is(Unlock(f), nil) {
					c.Free(f.Name())
				}
			}
		})
		plainWorks(c, f)
	},
	"plain, wait": func(c *fault.Case) {
		f := openWithFaults(c)
		c.Other("flock", f.Name(), "ex")
		c.Other("close-waiting", f.Name())
		c.Faults(func() {
			if c.Check(RLock(cancellable, f), f.Name()) {
				c.Locked(f.Name(), false)
			}
		})
		c.Other("close", f.Name())
		plainWorks(c, f)
	},
	"plain, cancel": func(c *fault.Case) {
		f := openWithFaults(c)
		c.Other("flock", f.Name(), "ex")
		c.Faults(func() {
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			c.WhenWaiting(cancel)
			if c.Check(Lock(ctx, f), f.Name(), context.Canceled) {
				c.Errorf("two have the lock")
			}
		})
		c.Other("close", f.Name())
		plainWorks(c, f)
	},

	"probe": func(c *fault.Case) {
		var err error
		c.Faults(func() {
			err = Probe(c.Dir)
			switch {
			case c.HasFailed("flock", unix.EWOULDBLOCK, unix.EACCES, unix.EDEADLK), c.HasFailed("fstat", unix.ENOENT, unix.ESTALE), c.HasFailed("newfstatat"):
				// For a moment somebody else had the lock, or the file was not at its path. Then Probe says so.
				var pathErr *fs.PathError
				if err != nil && !(errors.As(err, &pathErr) && pathErr.Path == c.Dir) {
					c.Errorf("%v", err)
				}
			default:
				c.Check(err, c.Dir)
			}
		})
		for _, left := range c.Files() {
			if !c.HasFailed("unlinkat") || err == nil { // for then it cannot be removed, and one is told
				c.Errorf("left behind: %s", left)
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
				c.Errorf("%v", h)
			}
		})
		h, err := Holders(path)
		if err != nil || len(h) != 1 {
			c.Errorf("%v, %v", h, err)
		}
	},

	"new semaphore": func(c *fault.Case) {
		var s *FileSemaphore
		c.Faults(func() {
			var err error
			if s, err = NewFileSemaphore(c.Path("sem"), 2); checkSem(c, err) {
				checkSem(c, s.Close())
			}
		})
		semaphoreWorks(c, semWithFaults(c, 2))
	},
	"semaphore of another size": func(c *fault.Case) {
		c.Must(semWithFaults(c, 200).Close())
		c.Faults(func() {
			if s, err := NewFileSemaphore(c.Path("sem"), 2); checkSem(c, err) {
				checkSem(c, s.Close())
			}
		})
		semaphoreWorks(c, semWithFaults(c, 2))
		semaphoreWorks(c, semWithFaults(c, 3))
	},
	"acquire": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Faults(func() {
			for n := range int64(3) {
				if checkSem(c, s.Acquire(bg, n)) {
					semUsed(c, n)
					s.Release(n)
				}
			}
		})
		semaphoreWorks(c, s)
	},
	"acquire again": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Must(s.Acquire(bg, 2))
		s.Release(2)
		s.checked = never
		for _, sl := range s.idle {
			believe(c, sl.file)
		}
		c.Faults(func() {
			if checkSem(c, s.Acquire(bg, 2)) {
				semUsed(c, 2)
				s.Release(2)
			}
		})
		semaphoreWorks(c, s)
	},
	"try to acquire": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Faults(func() {
			got := false
			if checkSem(c, c.Try(func() error { got = s.TryAcquire(2); return nil })); got {
				semUsed(c, 2)
				s.Release(2)
			}
		})
		semaphoreWorks(c, s)
	},
	"wait for a unit": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Other("flock", s.slotPath(1), "ex")
		c.Other("close-waiting", s.slotPath(1))
		c.Faults(func() {
			if checkSem(c, s.Acquire(cancellable, 2)) {
				semUsed(c, 2)
				s.Release(2)
			}
		})
		c.Other("close", s.slotPath(1))
		semaphoreWorks(c, s)
	},
	"wait for a unit in vain": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Other("flock", s.slotPath(1), "ex")
		c.Faults(func() {
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			c.WhenWaiting(cancel)
			if checkSem(c, s.Acquire(ctx, 2), context.Canceled) {
				c.Errorf("too many units")
			}
		})
		c.Other("close", s.slotPath(1))
		semaphoreWorks(c, s)
	},
	"wait for another head": func(c *fault.Case) {
		s := semWithFaults(c, 1)
		c.Other("flock", s.queue.Path(), "ex")
		c.Other("byte", s.gate.path, strconv.FormatInt(gateByte+2, 10), "sh")
		c.Other("close-waiting", s.queue.Path())
		c.Other("close-waiting", s.gate.path)
		c.Faults(func() {
			if checkSem(c, s.Acquire(cancellable, 1)) {
				semUsed(c, 1)
				s.Release(1)
			}
		})
		c.Other("close", s.queue.Path())
		c.Other("close", s.gate.path)
		semaphoreWorks(c, s)
	},
	"two wait for a unit": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Must(s.Acquire(bg, 2))
		c.Faults(func() {
			var waiters []<-chan error
			for n := range int64(2) {
				waiters = append(waiters, start(func() error {
					if checkSem(c, s.Acquire(cancellable, n+1)) {
						s.Release(n + 1)
					}
					return nil
				}))
			}
			for s.line.n.Load()+int64(len(waiters[0])+len(waiters[1])) < 2 {
				time.Sleep(10 * time.Microsecond)
			}
			c.WhenWaiting(func() { s.Release(2) })
			for _, done := range waiters {
				<-done
			}
		})
		semaphoreWorks(c, s)
	},
	"release to a head elsewhere": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Must(s.Acquire(bg, 2))
		c.Other("byte", s.gate.path, strconv.FormatInt(gateByte+2, 10), "sh")
		c.Faults(func() {
			s.Release(1)
			semUsed(c, 1)
			s.Release(1)
			semUsed(c, 0)
		})
		c.Other("close", s.gate.path)
		semaphoreWorks(c, s)
	},
	"semaphore whose files are replaced": func(c *fault.Case) {
		s := semWithFaults(c, 1)
		c.Must(s.Acquire(bg, 1))
		s.Release(1)
		for _, path := range []string{s.slotPath(0), s.gate.path, s.queue.Path()} {
			c.Must(os.Rename(c.Write("sem.new", "", 0o600), path))
		}
		s.checked = never
		c.Faults(func() {
			if checkSem(c, s.Acquire(bg, 1)) {
				if !c.HasFailed("newfstatat", unix.EACCES) { // see lockMovedWithFaults
					semUsed(c, 1)
				}
				s.Release(1)
			}
		})
		semaphoreWorks(c, s)
	},
	"close a semaphore": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Must(s.Acquire(bg, 2))
		s.Release(2)
		c.Faults(func() { checkSem(c, s.Close()) })
		if err := s.Close(); !errors.Is(err, fs.ErrClosed) {
			c.Errorf("closed twice: %v", err)
		}
		onlySem(c)
	},
}

var bg = context.Background()

// cancellable is a context that could end.
var cancellable, _ = context.WithCancel(bg)

func newWithFaults(c *fault.Case, path string) {
	c.Faults(func() {
		m, err := NewFileRWMutex(path)
		if c.Check(err, path) {
			if len(localFileSystems) > 0 && !m.local && c.HasFailed("fstatfs", unix.EINTR) {
				c.Errorf("a signal has made a local file system a remote one")
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

func waitersOf(m *FileRWMutex) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := m.first; w != nil; w = w.next {
		n++
	}
	return n
}

// believe makes f believe that it was seen at its path a moment ago.
func believe(c *fault.Case, f *lockFile) {
	id, err := f.identity()
	c.Must(err)
	if f.marked {
		f.known, f.knownAt = id.changed, clock()
	}
}

func lockWithFaults(c *fault.Case, m *FileRWMutex, ctx context.Context) {
	if c.Check(m.LockContext(ctx), m.Path()) {
		c.Locked(m.Path(), true)
		m.Unlock()
	}
}

// lockMovedWithFaults is lockWithFaults for a file that is not at its path any more.
func lockMovedWithFaults(c *fault.Case, m *FileRWMutex, ctx context.Context) {
	if c.Check(m.LockContext(ctx), m.Path()) {
		// Who may not look at the path has given up the right to, and stays with the file that it has open, on purpose.
		if !c.HasFailed("newfstatat", unix.EACCES) {
			c.Locked(m.Path(), true)
		}
		m.Unlock()
	}
}

func waitWithFaults(c *fault.Case, mode hold, canEnd bool) {
	m := mutexWithFaults(c)
	c.Other("flock", m.Path(), "ex")
	c.Other("close-waiting", m.Path())
	ctx := bg
	if canEnd {
		ctx = cancellable
	}
	c.Faults(func() {
		if c.Check(m.wrap(ctx, mode, m.lock(ctx, mode, true)), m.Path()) {
			c.Locked(m.Path(), mode == exclusive)
			if mode == exclusive {
				m.Unlock()
			} else {
				m.RUnlock()
			}
		}
	})
	c.Other("close", m.Path())
	mutexWorks(c, m)
}

func cancelWithFaults(c *fault.Case, m *FileRWMutex, mode hold) {
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	c.WhenWaiting(cancel)
	if c.Check(m.wrap(ctx, mode, m.lock(ctx, mode, true)), m.Path(), context.Canceled) {
		c.Errorf("two have the lock")
	}
}

func standAtGate(c *fault.Case, m *FileRWMutex) (path string) {
	if m.file.gateInFile() {
		c.Other("byte", m.Path(), strconv.FormatInt(gateByte, 10), "ex")
		return m.Path()
	}
	c.Other("byte", m.Path()+gateSuffix, strconv.FormatUint(m.file.ino, 10), "ex")
	return m.Path() + gateSuffix
}

// mutexWorks looks whether m is as new, and closes it.
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
	onlyLock(c)
}

func onlyLock(c *fault.Case) {
	h, err := openHandle(c.Path("lock"), true, 0o600)
	c.Must(err)
	h.close()
	if h.local {
		c.Only("lock", "lock.old")
	} else {
		c.Only("lock", "lock.old", "lock.gate")
	}
}

func openWithFaults(c *fault.Case) *os.File {
	f, err := os.Create(c.Path("file"))
	c.Must(err)
	return f
}

// plainWorks looks whether f can be locked, and closes it.
func plainWorks(c *fault.Case, f *os.File) {
	c.Must(Unlock(f))
	c.Free(f.Name())
	c.Must(Lock(bg, f))
	c.Locked(f.Name(), true)
	c.Must(Unlock(f))
	c.Free(f.Name())
	c.Must(f.Close())
	c.Only("file")
}

func semWithFaults(c *fault.Case, size int64) *FileSemaphore {
	s, err := NewFileSemaphore(c.Path("sem"), size)
	c.Must(err)
	return s
}

// checkSem is c.Check for an error of a semaphore, which may be about any of its files.
func checkSem(c *fault.Case, err error, others ...error) bool {
	path := c.Path("sem")
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		if rest, ok := strings.CutPrefix(pathErr.Path, path+"."); ok && slices.Contains(semFiles, "sem."+rest) {
			path = pathErr.Path
		}
	}
	return c.Check(err, path, others...)
}

var semFiles = []string{"sem.00.lock", "sem.01.lock", "sem.02.lock", "sem.gate.lock", "sem.queue.lock"}

func onlySem(c *fault.Case) {
	c.Only(append(semFiles, "sem.queue.lock.gate")...)
}

// semUsed looks whether so many slots are locked.
func semUsed(c *fault.Case, n int64) {
	used := int64(0)
	c.Aside(func() {
		for _, name := range semFiles[:3] {
			fd, err := unix.Open(c.Path(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err == unix.ENOENT {
				continue
			}
			c.Must(err)
			if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
				used++
			}
			unix.Close(fd)
		}
	})
	if used != n {
		c.Errorf("%d units are in use, not %d", used, n)
	}
}

// semaphoreWorks looks whether all units of s are free and can be had, and closes it.
func semaphoreWorks(c *fault.Case, s *FileSemaphore) {
	semUsed(c, 0)
	c.Must(s.Acquire(bg, s.Size()))
	semUsed(c, s.Size())
	if s.TryAcquire(1) {
		c.Errorf("too many units")
	}
	s.Release(s.Size())
	semUsed(c, 0)
	c.Must(s.Close())
	onlySem(c)
}
