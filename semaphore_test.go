package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/wine"
)

// acquirer has a FileSemaphore and does with it what it is told: "acquire n", "try n", "release n".
func acquirer(args []string) {
	size, _ := strconv.ParseInt(args[1], 10, 64)
	s, err := NewFileSemaphore(args[0], size)
	if err != nil {
		fmt.Println(err)
		return
	}
	serve(func(ctx context.Context, line string) error {
		verb, number, _ := strings.Cut(line, " ")
		n, _ := strconv.ParseInt(number, 10, 64)
		switch verb {
		case "acquire":
			return s.Acquire(ctx, n)
		case "try":
			if !s.TryAcquire(n) {
				return ErrLocked
			}
		case "release":
			s.Release(n)
		case "close":
			return s.Close()
		}
		return nil
	})
}

func semName(t testing.TB) string { return filepath.Join(tempDir(t), "sem") }

// newSemaphore is a FileSemaphore that is closed after the test, which must leave it unused.
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

// acquiring starts to acquire.
func acquiring(ctx context.Context, s *FileSemaphore, n int64) <-chan error {
	return start(func() error { return s.Acquire(ctx, n) })
}

// lineHas waits until n goroutines wait for s, and the first is the head of the queue, or behind
// a head elsewhere.
func lineHas(t testing.TB, s *FileSemaphore, n int64) {
	t.Helper()
	waitFor(t, "in line", func() bool { return s.line.n.Load() == n })
}

// becomesHead waits until a waiter of s is the head.
func becomesHead(t testing.TB, s *FileSemaphore) {
	t.Helper()
	waitFor(t, "head", func() bool {
		s.lock()
		defer s.unlock()
		return s.head != nil && s.marked
	})
}

func wantTry(t testing.TB, s *FileSemaphore, n int64, want bool) {
	t.Helper()
	if got := s.TryAcquire(n); got != want {
		t.Fatalf("TryAcquire(%d) = %t", n, got)
	}
}

// Who waits behind a head that gives up, and needs nothing, takes nothing from those behind.
func TestWhoNeedsNothingBehindACancelledHead(t *testing.T) {
	s := newSemaphore(t, semName(t), 2)
	for range 300 {
		must(t, s.Acquire(t.Context(), 2))
		ctx, cancel := context.WithCancel(t.Context())
		heavy := acquiring(ctx, s, 2)
		becomesHead(t, s)
		nothing := acquiring(t.Context(), s, 0)
		lineHas(t, s, 2)
		last := acquiring(t.Context(), s, 1)
		lineHas(t, s, 3)
		cancelled := start(func() error { cancel(); return nil })
		for end := time.Now().Add(rand.N(200 * time.Microsecond)); time.Now().Before(end); {
		}
		s.Release(2)
		must(t, finish(t, cancelled))
		if err := finish(t, heavy); err == nil {
			s.Release(2)
		}
		must(t, finish(t, nothing))
		must(t, finish(t, last))
		s.Release(1)
	}
}

func TestSizeIsOneForAll(t *testing.T) {
	name := semName(t)
	newSemaphore(t, name, 4)
	s, err := NewFileSemaphore(name, 3)
	var pathErr *fs.PathError
	if s != nil || !errors.As(err, &pathErr) || pathErr.Path != name+".gate.lock" {
		t.Error(err)
	}
}

// Also if it is a big one, or the file was left torn by a crash, or empty, or as zeros.
func TestNewSizeHoldsOnceNobodyUsesTheOld(t *testing.T) {
	name := semName(t)
	for size, left := range map[int64]string{4: "", 1 << 62: "1", 12: "", 3: "461    8  \n", 5: strings.Repeat("\x00", 20), 6: "12\x00\x00"} {
		s, err := NewFileSemaphore(name, size)
		must(t, err)
		wantTry(t, s, 1, true)
		s.Release(1)
		must(t, s.Close())
		must(t, os.WriteFile(name+".gate.lock", []byte(left), 0o600))
	}
}

// Under its other names, a file is somebody else's.
func TestNewSizeIsNotWrittenToAFileWithOtherNames(t *testing.T) {
	name := semName(t)
	other := filepath.Join(filepath.Dir(name), "other")
	const size = "4                  \n"
	must(t, os.WriteFile(other, []byte(size), 0o600))
	if err := os.Link(other, name+".gate.lock"); err != nil {
		t.Skip(err)
	}
	_, err := NewFileSemaphore(name, 3)
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != name+".gate.lock" || !strings.Contains(err.Error(), "has other names") {
		t.Error(err)
	}
	if data := Must(os.ReadFile(other)); string(data) != size {
		t.Errorf("%q", data)
	}
	must(t, Must(NewFileSemaphore(name, 4)).Close()) // for which nothing need be written
	must(t, os.Remove(other))                        // which nobody has open
	newSemaphore(t, name, 3)
}

// Many that come with different sizes at once: at any time, those who have it have it with one.
func TestSizesRace(t *testing.T) {
	name := semName(t)
	var using [4]atomic.Int32
	var opened atomic.Int32
	hammer(t, 4, 50, func(i int) {
		size := i % 3
		s, err := NewFileSemaphore(name, int64(size))
		if err != nil {
			if !strings.Contains(err.Error(), "in use") {
				t.Error(err)
			}
			return
		}
		opened.Add(1)
		using[size].Add(1)
		runtime.Gosched()
		for other := range using {
			if other != size && using[other].Load() > 0 {
				t.Error("two sizes")
			}
		}
		using[size].Add(-1)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if opened.Load() == 0 {
		t.Error("nobody got it")
	}
}

func TestSlotFilesRemoved(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	wantTry(t, other, 2, true)
	other.Release(2) // it has the files open
	wantTry(t, s, 2, true)
	w := acquiring(t.Context(), other, 1)
	pending(t, w)
	remove(t, s.slotPath(0))
	must(t, finish(t, w)) // which is the new file
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

// A unit that is given on within the process does not stay on a file that is gone.
func TestRemovedSlotIsNotGivenOn(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 1)
	wantTry(t, s, 1, true)
	rename(t, s.slotPath(0), name+".moved")
	w := acquiring(t.Context(), s, 1)
	pending(t, w) // a process, too, has no more than the size
	s.Release(1)
	must(t, finish(t, w)) // by the new file
	wantTry(t, newSemaphore(t, name, 1), 1, false)
	s.Release(1)
}

func TestGateFileRemoved(t *testing.T) {
	for _, what := range []string{".gate.lock", ".queue.lock"} {
		t.Run(what, func(t *testing.T) {
			name := semName(t)
			s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
			wantTry(t, s, 2, true)
			early := acquiring(t.Context(), s, 4) // and has two more
			becomesHead(t, s)
			remove(t, name+what)
			late := acquiring(t.Context(), other, 4)
			// Each has two, perhaps, and one of them has to let go.
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

func TestSizeChangesUnderneath(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 4)
	wantTry(t, s, 1, true)
	remove(t, name+".gate.lock")
	newSemaphore(t, name, 3)
	time.Sleep(checkInterval)
	err := s.Acquire(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "size 3") || !strings.Contains(err.Error(), "size 4") {
		t.Error(err)
	}
	s.Release(1)
}

// What package locktest does not say of errors.
func TestSemaphoreErrorsNameIt(t *testing.T) {
	name := semName(t)
	s, err := NewFileSemaphore(name, 1)
	must(t, err)
	is := func(err, want error) {
		t.Helper()
		var pathErr *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &pathErr) || pathErr.Path != name {
			t.Errorf("%v, want %s: %v", err, name, want)
		}
	}
	wantTry(t, s, 1, true)
	is(s.Close(), errInUse)
	s.Release(1)
	must(t, s.Close())
	is(s.Close(), fs.ErrClosed)
	is(s.Acquire(t.Context(), 1), fs.ErrClosed)
	defer func() {
		err, _ := recover().(error)
		is(err, fs.ErrClosed)
	}()
	s.TryAcquire(1)
}

func TestSemaphoreRefuses(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"slot.03.lock", "gate.gate.lock", "queue.queue.lock"} {
		must(t, os.Mkdir(in(d), 0o700))
	}
	if !wine.Here() { // which has no symbolic links
		symlink(t, "nowhere", in("link.00.lock"))
	} else {
		must(t, os.Mkdir(in("link.00.lock"), 0o700))
	}
	for name, want := range map[string]string{
		in("slot"):            in("slot.03.lock"),
		in("gate"):            in("gate.gate.lock"),
		in("queue"):           in("queue.queue.lock"),
		in("link"):            in("link.00.lock"),
		in("missing/parent"):  in("missing/parent.gate.lock"),
		in("gate.gate.lock/"): "",
		"":                    "",
	} {
		s, err := NewFileSemaphore(name, 4)
		if want == "" && name != "" {
			must(t, err) // odd, but it can be done
			must(t, s.Close())
			continue
		}
		var pathErr *fs.PathError
		if s != nil || !errors.As(err, &pathErr) || pathErr.Path != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := NewFileSemaphore(in("negative"), -1); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	if _, err := NewFileSemaphore(in("perm"), 1, WithPerm(fs.ModeSetuid)); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
}

func TestGroup(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, other, 1, true)
	g, ctx := s.Group(t.Context())
	var running, most, ran atomic.Int32
	for range 20 {
		g.Go(func() error {
			for now := running.Add(1); ; {
				old := most.Load()
				if now <= old || most.CompareAndSwap(old, now) {
					break
				}
			}
			time.Sleep(time.Millisecond)
			running.Add(-1)
			ran.Add(1)
			return nil
		})
	}
	must(t, g.Wait())
	if most.Load() > 2 || ran.Load() != 20 {
		t.Errorf("%d ran, %d at once", ran.Load(), most.Load())
	}
	if ctx.Err() != context.Canceled {
		t.Error(ctx.Err())
	}
	other.Release(1)
	wantTry(t, other, 3, true) // all are back
	other.Release(3)
}

func TestGroupErrors(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	bad := errors.New("bad")
	g, ctx := s.Group(t.Context())
	release := make(chan struct{})
	g.Go(func() error {
		<-release
		return bad
	})
	if g.TryGo(func() error { return nil }) {
		t.Error("two run")
	}
	waits := start(func() error {
		g.Go(func() error { t.Error("runs after an error"); return nil })
		return nil
	})
	pending(t, waits)
	close(release)
	must(t, finish(t, waits)) // waiting ended
	if err := g.Wait(); err != bad || context.Cause(ctx) != bad {
		t.Error(err, context.Cause(ctx))
	}
	if g.TryGo(func() error { return nil }) {
		t.Error("runs after the end")
	}

	// A wait that ends with the context is an error.
	ctx, cancel := context.WithCancel(t.Context())
	wantTry(t, s, 1, true)
	g, _ = s.Group(ctx)
	waits = start(func() error { g.Go(func() error { return nil }); return g.Wait() })
	pending(t, waits)
	cancel()
	if err := finish(t, waits); err != context.Canceled {
		t.Error(err)
	}
	s.Release(1)

	// Nobody gets the unit of the one who failed.
	for range 100 {
		g, _ := s.Group(t.Context())
		g.Go(func() error { time.Sleep(100 * time.Microsecond); return bad })
		g.Go(func() error { t.Error("runs after an error"); return nil })
		if err := g.Wait(); err != bad {
			t.Error(err)
		}
	}

	g, _ = s.Group(t.Context())
	if !g.TryGo(func() error { return bad }) {
		t.Error("did not run")
	}
	if err := g.Wait(); err != bad {
		t.Error(err)
	}
	wantTry(t, s, 1, true)
	s.Release(1)
}
