package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"github.com/interlock-go/interlock/internal/wine"
)

// acquirer is a process that uses a FileSemaphore on request, see
// [kit.ServeSemaphore].
func acquirer(args []string) {
	size, _ := strconv.ParseInt(args[1], 10, 64)
	s, err := NewFileSemaphore(args[0], size)
	if err != nil {
		fmt.Println(err)
		return
	}
	kit.ServeSemaphore(s)
}

func semName(t testing.TB) string { return filepath.Join(tempDir(t), "sem") }

// newSemaphore returns a FileSemaphore that is closed at the end of the test.
// By then, the test must have released all units.
func newSemaphore(t testing.TB, name string, size int64, opts ...Option) *FileSemaphore {
	t.Helper()
	s, err := NewFileSemaphore(name, size, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// acquiring calls Acquire on another goroutine.
func acquiring(ctx context.Context, s *FileSemaphore, n int64) <-chan error {
	return start(func() error { return s.Acquire(ctx, n) })
}

// queueHas waits until n goroutines wait for units of s.
func queueHas(t testing.TB, s *FileSemaphore, n int64) {
	t.Helper()
	waitFor(t, "waiters", func() bool { return queuedFor(s) == n })
}

// becomesHead waits until a goroutine that waits for units of s is the head of
// the machine's queue, and other processes can see that it waits.
func becomesHead(t testing.TB, s *FileSemaphore) {
	t.Helper()
	waitFor(t, "the head", func() bool { return isHead(s) && marked(s) })
}

func wantTry(t testing.TB, s *FileSemaphore, n int64, want bool) {
	t.Helper()
	if got := s.TryAcquire(n); got != want {
		t.Fatalf("TryAcquire(%d) = %t, want %t", n, got, want)
	}
}

// The head is canceled at about the time of the release that would give it its
// units. A call for no units behind it must not keep any of them.
func TestAcquireZeroBehindCanceledHead(t *testing.T) {
	s := newSemaphore(t, semName(t), 2)
	rounds := 50
	if longtest.Enabled() {
		rounds = 500
	}
	for range rounds {
		must(t, s.Acquire(t.Context(), 2))
		ctx, cancel := context.WithCancel(t.Context())
		head := acquiring(ctx, s, 2)
		becomesHead(t, s)
		zero := acquiring(t.Context(), s, 0)
		queueHas(t, s, 2)
		last := acquiring(t.Context(), s, 1)
		queueHas(t, s, 3)
		canceled := start(func() error { cancel(); return nil })
		for end := time.Now().Add(rand.N(200 * time.Microsecond)); time.Now().Before(end); {
		}
		s.Release(2)
		must(t, finish(t, canceled))
		if finish(t, head) == nil {
			s.Release(2)
		}
		must(t, finish(t, zero))
		must(t, finish(t, last))
		s.Release(1)
	}
}

// Such a call waits until its context is done, but not in the queue.
func TestAcquireMoreThanSizeDelaysNoCall(t *testing.T) {
	s, err := NewFileSemaphore(semName(t), 2)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 3)
	pending(t, w)
	wantTry(t, s, 3, false)
	wantTry(t, s, 2, true)
	s.Release(2)
	must(t, s.Close())
	cancel()
	if err := finish(t, w); err != context.Canceled {
		t.Errorf("Acquire returned %v", err)
	}
}

// Units stay acquired when their slot file is removed. Everybody else uses the
// new file at the path.
func TestSlotFileRemoved(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	wantTry(t, other, 2, true)
	other.Release(2) // it has both files open
	wantTry(t, s, 2, true)
	w := acquiring(t.Context(), other, 1)
	pending(t, w)
	remove(t, s.slotPath(0))
	must(t, finish(t, w)) // it has the new file
	wantTry(t, other, 1, false)
	third := newSemaphore(t, name, 2)
	wantTry(t, third, 1, false)
	s.Release(2)
	wantTry(t, third, 2, false)
	wantTry(t, third, 1, true)
	wantTry(t, s, 1, false)
	third.Release(1)
	other.Release(1)
	wantTry(t, s, 2, true)
	s.Release(2)
}

// A release hands a unit to a waiter of its own process, but not one whose slot
// file is no longer at its path.
func TestReleaseHandsOnNoMovedSlot(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 1)
	wantTry(t, s, 1, true)
	rename(t, s.slotPath(0), name+".moved")
	w := acquiring(t.Context(), s, 1)
	pending(t, w) // a process never has more units than the size
	s.Release(1)
	must(t, finish(t, w)) // it has the new file
	wantTry(t, newSemaphore(t, name, 1), 1, false)
	s.Release(1)
}

// Two calls that wait at different files, because one was removed in between,
// may each have half of the units. One of them must give way.
func TestWaitersAfterFileRemoved(t *testing.T) {
	for _, file := range []string{".gate.lock", ".queue.lock"} {
		t.Run(file, func(t *testing.T) {
			name := semName(t)
			s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
			wantTry(t, s, 2, true)
			early := acquiring(t.Context(), s, 4) // collects the other two
			becomesHead(t, s)
			remove(t, name+file)
			late := acquiring(t.Context(), other, 4)
			pending(t, early)
			pending(t, late)
			s.Release(2)
			select {
			case err := <-early:
				must(t, err)
				s.Release(4)
				must(t, finish(t, late))
				other.Release(4)
			case err := <-late:
				must(t, err)
				other.Release(4)
				must(t, finish(t, early))
				s.Release(4)
			case <-time.After(patience):
				t.Fatal("both wait")
			}
		})
	}
}

// Package locktest checks which errors there are. This test checks that they
// name the semaphore.
func TestSemaphoreErrorsNameSemaphore(t *testing.T) {
	name := semName(t)
	s, err := NewFileSemaphore(name, 1)
	must(t, err)
	wantError := func(err, want error) {
		t.Helper()
		var pathErr *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &pathErr) || pathErr.Path != name {
			t.Errorf("got %v, want an error with %s: %v", err, name, want)
		}
	}
	wantTry(t, s, 1, true)
	wantError(s.Close(), errInUse)
	s.Release(1)
	must(t, s.Close())
	wantError(s.Close(), fs.ErrClosed)
	wantError(s.Acquire(t.Context(), 1), fs.ErrClosed)
	defer func() {
		err, _ := recover().(error)
		wantError(err, fs.ErrClosed)
	}()
	s.TryAcquire(1)
}

func TestNewFileSemaphoreRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"slot.03.lock", "gate.gate.lock", "queue.queue.lock"} {
		must(t, os.Mkdir(in(d), 0o700))
	}
	if wine.Here() { // it has no symbolic links
		must(t, os.Mkdir(in("link.00.lock"), 0o700))
	} else {
		symlink(t, "nowhere", in("link.00.lock"))
	}
	for name, want := range map[string]string{
		in("slot"):           in("slot.03.lock"),
		in("gate"):           in("gate.gate.lock"),
		in("queue"):          in("queue.queue.lock"),
		in("link"):           in("link.00.lock"),
		in("missing/parent"): in("missing/parent.gate.lock"),
		"":                   "",
	} {
		s, err := NewFileSemaphore(name, 4)
		var pathErr *fs.PathError
		if s != nil || !errors.As(err, &pathErr) || pathErr.Path != want {
			t.Errorf("%q: got error %v, want one with %q", name, err, want)
		}
	}
	must(t, newSemaphoreError(in("gate.gate.lock/"), 4)) // in the directory; odd, but possible
	if err := newSemaphoreError(in("negative"), -1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("negative size: %v", err)
	}
	if err := newSemaphoreError(in("perm"), 1, WithPerm(fs.ModeSetuid)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("bad permissions: %v", err)
	}
}

// newSemaphoreError returns the error of NewFileSemaphore, and closes the
// semaphore if there is none.
func newSemaphoreError(name string, size int64, opts ...Option) error {
	s, err := NewFileSemaphore(name, size, opts...)
	if err == nil {
		err = s.Close()
	}
	return err
}
