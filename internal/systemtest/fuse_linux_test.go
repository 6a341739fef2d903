package systemtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/kernelwait"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// Where the file system does not answer, a call ends with its context all the
// same, and leaves nothing behind once the file system is gone.
func TestDeadlineOnFileSystemThatDoesNotAnswer(t *testing.T) {
	for name, mode := range map[string]string{"waits": "waits", "silent": "silent", "stopped": "waits"} {
		t.Run(name, func(t *testing.T) {
			fds := kit.Descriptors(t, "self") + 1 // one remains, to cancel waits in the kernel
			t.Cleanup(func() {                    // after all files are closed
				kit.WaitFor(t, "descriptors are closed", func() bool { return kit.Descriptors(t, "self") <= fds })
			})
			daemon, path := mountFUSE(t, mode)
			m, err := interlock.NewFileRWMutex(path)
			kit.Must(t, err)
			if name != "silent" {
				holder := newMutex(t, path)
				holder.Lock()
				defer holder.Unlock()
				if m.TryLock() || m.TryRLock() || holder.TryRLock() {
					t.Error("the lock has two holders")
				}
			}
			if name == "stopped" { // while a goroutine waits in the kernel
				ctx, cancel := context.WithCancel(t.Context())
				waiter := locking(ctx, m)
				kit.Pending(t, waiter)
				kit.Stop(t, daemon)
				cancel()
				if err := kit.Finish(t, waiter); err != context.Canceled {
					t.Error(err)
				}
			}
			var waiters []<-chan error
			for i := range 20 {
				lock := m.LockContext
				if i%2 == 1 {
					lock = m.RLockContext
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%5)*10*time.Millisecond)
				defer cancel()
				waiters = append(waiters, kit.Start(func() error { return lock(ctx) }))
			}
			for _, w := range waiters {
				if err := kit.Finish(t, w); err != context.DeadlineExceeded {
					t.Error(err)
				}
			}
			for method, call := range methods(m) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				if err := call(ctx); err != context.DeadlineExceeded && (name != "waits" || err == nil) {
					t.Errorf("%s: %v", method, err)
				}
			}
			if n := kit.Threads(t, "self"); n > 120 {
				t.Errorf("%d threads", n)
			}
			daemon.Kill() // ends all calls
			kit.WaitFor(t, "all waits in the kernel end", func() bool { return kernelwait.Waits() == 0 })
			kit.Must(t, m.Close())
		})
	}
}

// However many calls a file system leaves unanswered, it does not block calls
// on another one.
func TestSilentFileSystemBlocksNoOther(t *testing.T) {
	longtest.Skip(t) // it makes hundreds of threads wait
	daemon, path := mountFUSE(t, "works")
	_, otherPath := mountFUSE(t, "works")
	t.Cleanup(offload.SetGrace(0))
	m, other := newMutex(t, path), newMutex(t, otherPath)
	daemon.Ask("", "silent")
	for range offload.MaxPerDevice + 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := m.TryLockContext(ctx); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		cancel()
	}
	if n := kit.Threads(t, "self"); n < offload.MaxPerDevice/2 {
		t.Errorf("only %d threads wait", n)
	}
	kit.Must(t, kit.Finish(t, locking(t.Context(), other)))
	other.Unlock()
	daemon.Kill()
	kit.WaitFor(t, "the abandoned calls end", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), kit.Moment)
		defer cancel()
		return !errors.Is(m.TryLockContext(ctx), context.DeadlineExceeded)
	})
}

// Where the file system refuses to wait, a waiter polls.
func TestFileSystemThatDoesNotWait(t *testing.T) {
	_, path := mountFUSE(t, "refuses")
	m, holder := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	waiter := locking(t.Context(), m)
	kit.Pending(t, waiter)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := m.LockContext(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
	holder.Unlock()
	kit.Must(t, kit.Finish(t, waiter))
	m.Unlock()
}

// Where the file system no longer knows a removed file that is open, the new
// file at the path is used.
func TestRemovedFileThatFileSystemForgets(t *testing.T) {
	_, path := mountFUSE(t, "works")
	m := newMutex(t, path)
	for _, call := range []struct {
		lock   func() error
		unlock func()
	}{
		{func() error { m.Lock(); return nil }, m.Unlock},
		{func() error { m.RLock(); return nil }, m.RUnlock},
		{func() error { return m.TryLockContext(t.Context()) }, m.Unlock},
	} {
		m.Lock()
		m.Unlock()
		kit.Must(t, os.Remove(path))
		kit.Must(t, call.lock())
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		if m.TryLock() {
			t.Error("the lock has two holders")
		}
		kit.Must(t, os.Remove(path)) // while it is held
		call.unlock()
	}
}

// An Unlock call that gets no answer blocks only its caller.
func TestUnlockWithoutAnswerBlocksOnlyItsCaller(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		daemon, path := mountFUSE(t, "works")
		m := newMutex(t, path)
		m.Lock()
		daemon.Ask("", "silent")
		unlocked := kit.Start(func() error { m.Unlock(); return nil })
		kit.Pending(t, unlocked)
		for name, call := range methods(m) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := call(ctx); err == nil {
				t.Errorf("%s: locked twice", name)
			}
		}
		daemon.Kill()
		kit.Finish(t, unlocked)
	})
	t.Run("stopped", func(t *testing.T) {
		daemon, path := mountFUSE(t, "works")
		m := newMutex(t, path)
		m.Lock()
		kit.Stop(t, daemon)
		defer daemon.Signal(unix.SIGCONT)
		unlocked := kit.Start(func() error { m.Unlock(); return nil })
		time.Sleep(20 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), kit.Moment)
		defer cancel()
		if err := kit.Finish(t, locking(ctx, m)); err != context.DeadlineExceeded {
			t.Error(err)
		}
		daemon.Signal(unix.SIGCONT)
		kit.Must(t, kit.Finish(t, unlocked))
	})
}

// A reader and a writer of one process, and of two, exclude each other on a
// file system that is not known to be local.
func TestExclusionOnRemoteFileSystem(t *testing.T) {
	_, path := mountFUSE(t, "works")
	m := newMutex(t, path, interlock.WithPollInterval(time.Millisecond, 2*time.Millisecond))
	other := newMutex(t, path)
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		n := 0
		kit.Hammer(t, 4, 50, func(i int) {
			l := []*interlock.FileRWMutex{m, other}[i%2]
			try, unlock := l.TryLockContext, l.Unlock
			if i >= 2 {
				try, unlock = l.TryRLockContext, l.RUnlock
			}
			for try(ctx) != nil { // the file system does not answer a request that waits
				time.Sleep(time.Millisecond)
			}
			if i < 2 {
				n++
			} else {
				_ = n
			}
			unlock()
		})
		if n != 2*50 {
			t.Errorf("%d increments left of %d", n, 2*50)
		}
	}
	n := 0
	kit.Hammer(t, 8, 50, func(i int) { // these wait for each other in this process
		if i%2 == 0 {
			kit.Must(t, m.LockContext(t.Context()))
			n++
			m.Unlock()
		} else {
			kit.Must(t, m.RLockContext(t.Context()))
			_ = n
			m.RUnlock()
		}
	})
	if n != 4*50 {
		t.Errorf("%d increments left of %d", n, 4*50)
	}
}

// On a file system that is not known to be local, a writer stops readers at a
// sibling file.
func TestWriterStopsReadersOnRemoteFileSystem(t *testing.T) {
	_, path := mountFUSE(t, "works")
	m, other := newMutex(t, path), newMutex(t, path)
	other.RLock()
	ctx, cancel := context.WithCancel(t.Context())
	writer := locking(ctx, m)
	waitForWriter(t, path)
	time.Sleep(time.Millisecond) // other remembers for a moment that there was no writer
	if other.TryRLock() {
		t.Error("a reader overtook a writer")
	}
	cancel()
	if err := kit.Finish(t, writer); err != context.Canceled {
		t.Error(err)
	}
	other.RUnlock()
	kit.WaitFor(t, "the writer leaves the gate", func() bool { return !writerAtGate(path) })
	kit.WaitFor(t, "the lock is free", other.TryLock)
	other.Unlock()
	if _, err := os.Stat(path + gateSuffix); err != nil {
		t.Error(err)
	}
}

// An owner that locks again makes no system call, so it does not notice that
// the file system no longer answers.
func TestLockingAgainMakesNoCall(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	var locks []*interlock.FileRMutex
	for range 2 {
		m, err := interlock.NewFileRMutex(path)
		kit.Must(t, err)
		defer m.Close()
		locks = append(locks, m)
	}
	outer, o := locks[0], interlock.NewOwner()
	ctx := interlock.ContextWithOwner(t.Context(), o)
	outer.Lock(o)
	kit.Stop(t, daemon)
	defer daemon.Signal(unix.SIGCONT)
	kit.Must(t, kit.Finish(t, kit.Start(func() error {
		for range 100 {
			for _, m := range locks {
				m.Lock(o)
				err := errors.Join(m.LockContext(ctx, o), m.TryLockContext(ctx, o))
				err = errors.Join(err, m.Do(ctx, func(context.Context) error { return nil }))
				if !m.TryLock(o) || m.Depth(o) != 5 || err != nil {
					return errors.Join(errors.New("the owner could not lock again"), err)
				}
				for range 4 {
					m.Unlock(o)
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
		return nil
	})))
	daemon.Signal(unix.SIGCONT)
	outer.Unlock(o)
	if d := outer.Depth(o); d != 0 {
		t.Errorf("depth %d, want 0", d)
	}
}

func TestProbeSaysWhatDoesNotWork(t *testing.T) {
	for mode, want := range map[string]string{
		"works":  "",
		"grants": "two writers hold an exclusive lock",
		"hoards": "a released lock is not free",
		"strict": "readers do not share the lock",
		"unable": "an exclusive lock cannot be acquired: ",
	} {
		t.Run(mode, func(t *testing.T) {
			_, path := mountFUSE(t, mode)
			dir := filepath.Dir(path)
			err := interlock.Probe(dir)
			switch {
			case want == "":
				kit.Must(t, err)
			case err == nil || !strings.HasPrefix(err.Error(), "probe "+dir+": "+want):
				t.Errorf("Probe = %v, want %q", err, want)
			case mode == "unable" && !errors.Is(err, unix.EBADF):
				t.Errorf("Probe = %v, which does not match EBADF", err)
			}
		})
	}
}
