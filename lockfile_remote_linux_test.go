//go:build !interlock_bsd

package interlock

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/kernelwait"
	"golang.org/x/sys/unix"
)

// openFiles returns how many descriptors of the lock file and its gate this
// process has.
func openFiles(t *testing.T, path string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); strings.HasPrefix(target, path) {
			n++
		}
	}
	return n
}

// undone waits until all that a lock file forgot is undone: other can lock it,
// no process stands at the gate, and only that many files are open.
func undone(t *testing.T, other *lockFile, files int) {
	t.Helper()
	waitFor(t, "the gate is free", func() bool { return !taken(other, exclusive) })
	waitFor(t, "the lock is free", func() bool {
		askAgain(other)
		return other.try(t.Context(), exclusive) == nil
	})
	other.unlock()
	waitFor(t, "descriptors are closed", func() bool { return openFiles(t, other.path) <= files })
}

// A try that gets no answer is abandoned, and what it did is undone when the
// answer comes at last.
func TestAbandonedTryIsUndone(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	other := lockFileAt(t, path)
	must(t, other.try(t.Context(), exclusive))
	other.unlock()
	before := openFiles(t, path)
	for range 3 {
		f := openLockFileAt(t, path)
		stop(t, daemon)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		wantErr(t, "try", f.try(ctx, exclusive), context.DeadlineExceeded)
		cancel()
		if f.file != nil {
			t.Error("the lock file still has a file that an abandoned call may lock")
		}
		daemon.Signal(unix.SIGCONT)
		undone(t, other, before)
		// With another descriptor. The abandoned call may come first.
		waitFor(t, "the abandoned call is undone", func() bool {
			err := f.try(t.Context(), exclusive)
			if err != ErrLocked {
				must(t, err)
			}
			return err == nil
		})
		f.unlock()
		f.close()
	}
}

// A wait that gets no answer is abandoned, and what it did is undone when the
// answer comes at last.
func TestAbandonedWaitIsUndone(t *testing.T) {
	needKernelWait(t)
	daemon, path := mountFUSE(t, "waits")
	other, holder := lockFileAt(t, path), lockFileAt(t, path)
	before := openFiles(t, path)
	for range 3 {
		f := openLockFileAt(t, path)
		must(t, holder.try(t.Context(), exclusive))
		ctx, cancel := context.WithCancel(t.Context())
		waits := kernelwait.Waits() // abandoned ones count until the daemon ends
		waiter := start(func() error { return f.wait(ctx, exclusive) })
		waitFor(t, "the wait is in the kernel", func() bool {
			return kernelwait.Waits() > waits && taken(other, exclusive)
		})
		pending(t, waiter)
		stop(t, daemon)
		cancel()
		wantErr(t, "wait", finish(t, waiter), context.Canceled)
		if f.file != nil {
			t.Error("the lock file still has a file that an abandoned call may lock")
		}
		daemon.Signal(unix.SIGCONT)
		holder.unlock()
		f.close()
		waitFor(t, "the gate is free", func() bool { return !taken(other, exclusive) })
	}
	daemon.Kill() // which ends the requests that wait
	waitFor(t, "descriptors are closed", func() bool { return openFiles(t, path) <= before })
}

// A question that gets no answer changes nothing: the file stays, and stays
// locked.
func TestAbandonedQuestionKeepsFile(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	f, other := lockFileAt(t, path), lockFileAt(t, path)
	must(t, f.try(t.Context(), shared))
	askAgain(f)
	stop(t, daemon)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	wantErr(t, "contended", f.contended(ctx, shared), context.DeadlineExceeded)
	cancel()
	daemon.Signal(unix.SIGCONT)
	if f.file == nil {
		t.Fatal("the lock file gave up its file")
	}
	wantErr(t, "a writer's try", other.try(t.Context(), exclusive), ErrLocked)
	must(t, f.contended(t.Context(), shared))
	f.unlock()
	waitFor(t, "the lock is free", func() bool { return other.try(t.Context(), exclusive) == nil })
	other.unlock()
}

// A gate that is opened just as the context ends is closed with the lock file.
func TestGateOpenedAsContextEndsIsClosed(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		before := openFiles(t, path)
		for range 500 {
			f := openLockFileAt(t, path)
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(200*time.Microsecond))
			if err := f.announce(ctx, exclusive); err != nil && err != context.DeadlineExceeded {
				t.Error(err)
			}
			cancel()
			f.withdraw()
			f.close()
		}
		waitFor(t, "descriptors are closed", func() bool { return openFiles(t, path) <= before })
	})
}

// A doneContext is done from a certain call of its method Done on.
type doneContext struct {
	context.Context
	calls atomic.Int64 // that are left
	done  chan struct{}
}

func (c *doneContext) Done() <-chan struct{} {
	if c.calls.Add(-1) == 0 {
		close(c.done)
	}
	return c.done
}

func (c *doneContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// A try that is canceled has given the lock back, wherever it is at that
// moment.
func TestCanceledTryIsUndone(t *testing.T) {
	asRemote(t)
	f, other, _ := lockFilesAt(t, lockPath(t))
	canceled := 0
	for i := range int64(200) {
		ctx := &doneContext{Context: t.Context(), done: make(chan struct{})}
		ctx.calls.Store(1 + i%10)
		switch err := f.try(ctx, exclusive); err {
		case nil:
			f.unlock()
		case context.Canceled:
			canceled++
		default:
			t.Fatal(err)
		}
		askAgain(other)
		if err := other.try(t.Context(), exclusive); err != nil {
			t.Fatalf("canceled at call %d of Done: the lock is not free: %v", 1+i%10, err)
		}
		other.unlock()
	}
	if canceled == 0 || canceled == 200 {
		t.Errorf("%d of 200 tries were canceled", canceled)
	}
}
