//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/offload"
	"golang.org/x/sys/unix"
)

// In these tests, the files are on a file system in user space, whose daemon
// can be stopped, and then answers late or never.

// slowPoll makes a head pause for so long that a test can stop the file system
// between two looks.
const slowPoll = 30 * time.Millisecond

// Whatever a call of a canceled head does when the file system answers at last,
// it is undone, once.
func TestCanceledHeadIsUndoneLate(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s := newSemaphore(t, path, 1)
	other := newSemaphore(t, path, 1, WithPollInterval(slowPoll, slowPoll))
	for range 5 {
		must(t, s.Acquire(t.Context(), 1))
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, other, 1)
		becomesHead(t, other)
		stop(t, daemon)
		released := start(func() error { s.Release(1); return nil })
		time.Sleep(2 * slowPoll) // the next try gets no answer, and later a unit
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Errorf("Acquire returned %v", err)
		}
		daemon.Signal(unix.SIGCONT)
		must(t, finish(t, released))
		must(t, becomesQuiet(other, 0))
	}
}

func TestCanceledHeadLeavesQueue(t *testing.T) {
	_, path := mountFUSE(t, "works")
	s, other := newSemaphore(t, path, 1), newSemaphore(t, path, 1)
	must(t, other.Acquire(t.Context(), 1))
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 1)
	becomesHead(t, s)
	cancel()
	if err := finish(t, w); err != context.Canceled {
		t.Errorf("Acquire returned %v", err)
	}
	must(t, becomesQuiet(s, 0))
	other.Release(1)
	must(t, finish(t, acquiring(t.Context(), s, 1)))
	s.Release(1)
}

// The file of the turn is gone when the file system answers.
func TestCanceledHeadLeavesRemovedTurnFile(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s := newSemaphore(t, path, 1)
	other := newSemaphore(t, path, 1, WithPollInterval(slowPoll, slowPoll))
	must(t, s.Acquire(t.Context(), 1))
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, other, 1)
		becomesHead(t, other)
		stop(t, daemon)
		time.Sleep(2 * slowPoll) // its next look gets no answer
		removed := start(func() error { return os.Remove(path + ".queue.lock") })
		time.Sleep(10 * time.Millisecond)
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Errorf("Acquire returned %v", err)
		}
		daemon.Signal(unix.SIGCONT)
		must(t, finish(t, removed))
		must(t, becomesQuiet(other, 0))
	}
	s.Release(1)
}

// The call would acquire a unit, or begin to wait for one.
func TestCanceledAcquireIsUndoneLate(t *testing.T) {
	for _, free := range []bool{true, false} {
		daemon, path := mountFUSE(t, "works")
		holder, s := newSemaphore(t, path, 1), newSemaphore(t, path, 1)
		if !free {
			must(t, holder.Acquire(t.Context(), 1))
		}
		stop(t, daemon)
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, s, 1)
		time.Sleep(20 * time.Millisecond)
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Errorf("Acquire returned %v", err)
		}
		daemon.Signal(unix.SIGCONT)
		must(t, becomesQuiet(s, 0))
		if !free {
			holder.Release(1)
		}
		must(t, finish(t, acquiring(t.Context(), holder, 1)))
		holder.Release(1)
	}
}

// The first slot is locked and the second does not answer. Then the first does
// not answer any more, so it cannot be unlocked either.
func TestCanceledAcquireReturnsThoughUnlockBlocks(t *testing.T) {
	daemon, name := mountFUSE(t, "works")
	_, silent := mountFUSE(t, "silent")
	s := newSemaphore(t, name, 2)
	bind(t, silent, s.slotPath(1))
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 2)
	waitFor(t, "the first slot", func() bool { return collected(s) == 1 })
	time.Sleep(moment) // the call for the second one is on its way
	stop(t, daemon)
	cancel()
	if err := finish(t, w); err != context.Canceled {
		t.Errorf("Acquire returned %v", err)
	}
	daemon.Signal(unix.SIGCONT)
	must(t, becomesQuiet(s, 0))
}

// The head has its unit, but the file system of the turn file does not answer the
// unlock.
func TestCanceledAcquireReturnsThoughTurnBlocks(t *testing.T) {
	_, name := mountFUSE(t, "works")
	daemon, turn := mountFUSE(t, "works")
	bind(t, turn, name+".queue.lock")
	const pause = 400 * time.Millisecond // long enough to stop the daemon in between
	s := newSemaphore(t, name, 1, WithPollInterval(pause, pause))
	other := newSemaphore(t, name, 1)
	must(t, other.Acquire(t.Context(), 1))
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 1)
	becomesHead(t, s)
	stop(t, daemon)
	other.Release(1)
	time.Sleep(2 * pause)
	cancel()
	switch err := finish(t, w); err {
	case nil: // it was able to give up the turn file just in time
		s.Release(1)
	case context.Canceled:
	default:
		t.Errorf("Acquire returned %v", err)
	}
	daemon.Signal(unix.SIGCONT)
	must(t, becomesQuiet(s, 0))
	must(t, finish(t, acquiring(t.Context(), other, 1)))
	other.Release(1)
}

// bind makes the file visible at another path, too.
func bind(t *testing.T, file, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, unix.Mount(file, path, "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
}

// The call for a lock of the gate returns soon after the context is done, and has
// acquired the lock.
func TestCanceledGateLockIsReleased(t *testing.T) {
	daemon, name := mountFUSE(t, "works")
	s := newSemaphore(t, name, 1)
	t.Cleanup(offload.SetGrace(patience))
	stop(t, daemon)
	ctx, cancel := context.WithCancel(t.Context())
	w := start(func() error { return s.gateTry(ctx, s.gate.collect, exclusive) })
	time.Sleep(moment)
	cancel()
	time.Sleep(moment)
	daemon.Signal(unix.SIGCONT)
	if err := finish(t, w); err != context.Canceled {
		t.Errorf("gateTry returned %v", err)
	}
	must(t, newSemaphoreError(name, 1)) // the daemon knows only locks of whole files
}

// Tracing does not change when a wait ends.
func TestCanceledTracedAcquireReturns(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s, err := NewFileSemaphore(path, 2, WithTrace(&Trace{}))
	must(t, err)
	must(t, s.Acquire(t.Context(), 1))
	daemon.Ask("", "silent")
	time.Sleep(checkInterval)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := finish(t, acquiring(ctx, s, 1)); err != context.DeadlineExceeded {
		t.Errorf("Acquire returned %v", err)
	}
	daemon.Kill()
	s.Release(1)
	waitFor(t, "the semaphore closes", func() bool { return s.Close() == nil })
}

// The error is that of the slot, and no call leaves a descriptor.
func TestSlotsThatCannotBeLocked(t *testing.T) {
	_, path := mountFUSE(t, "unable")
	s := newSemaphore(t, path, 4)
	var fds int
	for i := range 20 {
		err := s.Acquire(t.Context(), 1)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != s.slotPath(0) || errors.Is(err, ErrLocked) {
			t.Fatalf("Acquire returned %v, want an error with %s", err, s.slotPath(0))
		}
		if i == 0 {
			fds = descriptors(t, "self")
		}
	}
	if n := descriptors(t, "self"); n > fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}
