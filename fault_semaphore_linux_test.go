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

func init() {
	for name, scenario := range semaphoreFaults {
		faults[name] = scenario
	}
}

// A process that cannot take back its waiting mark does not stop others.
func TestMarkThatCannotBeTakenBackStopsNoProcess(t *testing.T) {
	needKernelWait(t)
	if !local(newMutex(t, lockPath(t))) {
		t.Skip("a waiter that polls makes other calls each time")
	}
	fault.One(t, "faults", "leave the queue", "fcntl", "F_OFD_SETLK)", unix.ENOLCK)
}

var semaphoreFaults = fault.Scenarios{
	"new semaphore": func(c *fault.Case) {
		c.Faults(func() {
			if s, err := NewFileSemaphore(c.Path("sem"), 2); checkSem(c, err) {
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
					unitsInUse(c, n)
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
		s.clear = never
		for _, sl := range s.idle {
			believe(c, sl.file)
		}
		c.Faults(func() {
			if checkSem(c, s.Acquire(bg, 2)) {
				unitsInUse(c, 2)
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
				unitsInUse(c, 2)
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
			if checkSem(c, s.Acquire(cancelable, 2)) {
				unitsInUse(c, 2)
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
				c.Errorf("too many units are in use")
			}
		})
		c.Other("close", s.slotPath(1))
		semaphoreWorks(c, s)
	},
	"wait for another head": func(c *fault.Case) {
		s := semWithFaults(c, 1)
		c.Other("flock", s.turn.path, "ex")
		c.Other("byte", s.gate.path, strconv.FormatInt(farByte+2, 10), "sh")
		c.Other("close-waiting", s.turn.path)
		c.Other("close-waiting", s.gate.path)
		c.Faults(func() {
			if checkSem(c, s.Acquire(cancelable, 1)) {
				unitsInUse(c, 1)
				s.Release(1)
			}
		})
		c.Other("close", s.turn.path)
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
					if checkSem(c, s.Acquire(cancelable, n+1)) {
						s.Release(n + 1)
					}
					return nil
				}))
			}
			for queuedFor(s)+int64(len(waiters[0])+len(waiters[1])) < 2 {
				time.Sleep(10 * time.Microsecond)
			}
			c.WhenWaiting(func() { s.Release(2) })
			for _, done := range waiters {
				<-done
			}
		})
		semaphoreWorks(c, s)
	},
	"release to another head": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Must(s.Acquire(bg, 2))
		c.Other("byte", s.gate.path, strconv.FormatInt(farByte+2, 10), "sh")
		c.Faults(func() {
			s.Release(1)
			unitsInUse(c, 1)
			s.Release(1)
			unitsInUse(c, 0)
		})
		c.Other("close", s.gate.path)
		semaphoreWorks(c, s)
	},
	"semaphore whose files are replaced": func(c *fault.Case) {
		s := semWithFaults(c, 1)
		c.Must(s.Acquire(bg, 1))
		s.Release(1)
		for _, path := range []string{s.slotPath(0), s.gate.path, s.turn.path} {
			c.Must(os.Rename(c.Write("sem.new", "", 0o600), path))
		}
		s.clear = never
		c.Faults(func() {
			if checkSem(c, s.Acquire(bg, 1)) {
				if !c.HasFailed("newfstatat", unix.EACCES) { // see lockReplacedWithFaults
					unitsInUse(c, 1)
				}
				s.Release(1)
			}
		})
		semaphoreWorks(c, s)
	},
	"leave the queue": func(c *fault.Case) {
		s, other := semWithFaults(c, 1), semWithFaults(c, 1)
		c.Must(other.Acquire(bg, 1))
		c.Faults(func() {
			c.WhenWaiting(func() { other.Release(1) })
			if checkSem(c, s.Acquire(bg, 1)) {
				s.Release(1)
			}
		})
		if !other.TryAcquire(1) {
			c.Errorf("TryAcquire failed, although no process has the unit or waits for it")
		} else {
			other.Release(1)
		}
		other.Close()
		semaphoreWorks(c, s)
	},
	"close a semaphore": func(c *fault.Case) {
		s := semWithFaults(c, 2)
		c.Must(s.Acquire(bg, 2))
		s.Release(2)
		c.Faults(func() { checkSem(c, s.Close()) })
		if err := s.Close(); !errors.Is(err, fs.ErrClosed) {
			c.Errorf("the second Close = %v", err)
		}
		onlySemFiles(c)
	},
}

func semWithFaults(c *fault.Case, size int64) *FileSemaphore {
	s, err := NewFileSemaphore(c.Path("sem"), size)
	c.Must(err)
	return s
}

// checkSem is c.Check for an error of a semaphore, which may name any of its
// files.
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

// onlySemFiles reports files other than those of a semaphore.
func onlySemFiles(c *fault.Case) {
	c.Only(append(semFiles, "sem.queue.lock.gate")...)
}

// unitsInUse reports a problem unless that number of slots is locked.
func unitsInUse(c *fault.Case, want int64) {
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
	if used != want {
		c.Errorf("%d units are in use, want %d", used, want)
	}
}

// semaphoreWorks checks that all units of s are free and can be acquired, and
// closes it.
func semaphoreWorks(c *fault.Case, s *FileSemaphore) {
	unitsInUse(c, 0)
	c.Must(s.Acquire(bg, s.Size()))
	unitsInUse(c, s.Size())
	if s.TryAcquire(1) {
		c.Errorf("too many units are in use")
	}
	s.Release(s.Size())
	unitsInUse(c, 0)
	c.Must(s.Close())
	onlySemFiles(c)
}
