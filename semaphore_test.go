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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
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
		// light acquires and releases one unit again and again, until cancelled.
		case "light":
			for ctx.Err() == nil {
				if s.Acquire(ctx, 1) == nil {
					time.Sleep(time.Millisecond)
					s.Release(1)
				}
			}
		case "close":
			return s.Close()
		}
		return nil
	})
}

func startAcquirer(t testing.TB, name string, size int64) *proc.Process {
	t.Helper()
	return startServer(t, "acquirer", name, fmt.Sprint(size))
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

func TestSemaphoreTryAcquire(t *testing.T) {
	name := semName(t)
	a, b := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, a, 4, false)
	wantTry(t, a, 3, true)
	wantTry(t, b, 1, false)
	wantTry(t, b, 0, true)
	a.Release(1)
	wantTry(t, b, 2, false)
	wantTry(t, b, 1, true) // nothing is left of the two
	wantTry(t, a, 1, false)
	a.Release(2)
	b.Release(1)
	wantTry(t, b, 2, true)
	wantTry(t, b, 1, true)
	b.Release(3)
	a.Release(0)
	if a.Size() != 3 {
		t.Error(a.Size())
	}
}

func TestSemaphoreOfSizeZero(t *testing.T) {
	s := newSemaphore(t, semName(t), 0)
	wantTry(t, s, 0, true)
	wantTry(t, s, 1, false)
	must(t, s.Acquire(t.Context(), 0))
	s.Release(0)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := s.Acquire(ctx, 1); err != context.DeadlineExceeded {
		t.Error(err)
	}
}

func TestSemaphoreDoneContext(t *testing.T) {
	s := newSemaphore(t, semName(t), 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, n := range []int64{0, 1, 3, 4} {
		if err := s.Acquire(ctx, n); err != context.Canceled {
			t.Errorf("%d: %v", n, err)
		}
	}
	wantTry(t, s, 3, true)
	s.Release(3)
}

func TestWhoWantsMoreThanTheSizeHoldsUpNobody(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	ctx, cancel := context.WithCancel(t.Context())
	doomed := acquiring(ctx, s, 3)
	pending(t, doomed)
	must(t, s.Acquire(t.Context(), 2))
	wantTry(t, s, 1, false)
	s.Release(2)
	p := startAcquirer(t, name, 2)
	p.Ask("try 2", "try 2 ok")
	p.Ask("release 2", "release 2 ok")
	cancel()
	if err := finish(t, doomed); err != context.Canceled {
		t.Error(err)
	}
}

func TestSemaphoreMisusePanicsAndHarmsNothing(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	wantTry(t, other, 1, true) // not to be released by s
	wantTry(t, s, 1, true)
	for what, f := range map[string]func(){
		"Acquire(-1)":    func() { s.Acquire(t.Context(), -1) },
		"TryAcquire(-1)": func() { s.TryAcquire(-1) },
		"Release(-1)":    func() { s.Release(-1) },
		"Release(2)":     func() { s.Release(2) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic: " + what)
				}
			}()
			f()
		}()
	}
	wantTry(t, s, 1, false)
	s.Release(1)
	other.Release(1)
	wantTry(t, s, 2, true)
	s.Release(2)
}

func TestSemaphoreOrderInOneProcess(t *testing.T) {
	s := newSemaphore(t, semName(t), 2)
	must(t, s.Acquire(t.Context(), 2))
	var mu sync.Mutex
	var order []int
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			must(t, s.Acquire(t.Context(), 2))
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
			s.Release(2)
		})
		lineHas(t, s, int64(i+1))
	}
	s.Release(2)
	wg.Wait()
	if !slices.IsSorted(order) {
		t.Error(order)
	}
}

// A heavy waiter is not overtaken by light ones for ever.
func TestHeavyWaiterIsNotStarved(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 3)
	var ps []*proc.Process
	for range 2 {
		p := startAcquirer(t, name, 3)
		for range 4 {
			p.Say("light")
		}
		ps = append(ps, p)
	}
	for range 20 {
		must(t, finish(t, acquiring(t.Context(), s, 3)))
		s.Release(3)
	}
	for _, p := range ps {
		p.Say("cancel")
		for range 4 {
			p.Expect("light ok")
		}
	}
}

// A process in which somebody waits at any time lets others have their turn.
func TestBusyLineLetsOtherProcessesIn(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 1)
	p := startAcquirer(t, name, 1)
	for range 8 {
		p.Say("light")
	}
	for range 20 {
		must(t, finish(t, acquiring(t.Context(), s, 1)))
		time.Sleep(time.Millisecond)
		s.Release(1)
	}
	p.Say("cancel")
	for range 8 {
		p.Expect("light ok")
	}
}

func TestCancelledAcquireFreesAllItHad(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, s, 1, true)
	ctx, cancel := context.WithCancel(t.Context())
	heavy := acquiring(ctx, s, 3) // which has two of them soon
	becomesHead(t, s)
	light := acquiring(t.Context(), other, 2)
	lineHas(t, other, 1)
	pending(t, light)
	cancel()
	if err := finish(t, heavy); err != context.Canceled {
		t.Error(err)
	}
	must(t, finish(t, light))
	other.Release(2)
	s.Release(1)
	wantTry(t, s, 3, true)
	s.Release(3)
}

// Cancelled one and all, in line, as the first, and as the head.
func TestCancelledWaitersLeaveTheLine(t *testing.T) {
	name := semName(t)
	holder, s := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	wantTry(t, holder, 2, true)
	for _, cancelled := range []int{0, 1, 2} {
		var waiters []<-chan error
		var cancels []context.CancelFunc
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cancels = append(cancels, cancel)
			waiters = append(waiters, acquiring(ctx, s, 1))
			lineHas(t, s, int64(i+1))
		}
		becomesHead(t, s)
		cancels[cancelled]()
		if err := finish(t, waiters[cancelled]); err != context.Canceled {
			t.Error(err)
		}
		holder.Release(2)
		for i, w := range waiters {
			if i != cancelled {
				must(t, finish(t, w))
			}
		}
		s.Release(2)
		must(t, holder.Acquire(t.Context(), 2))
	}
	holder.Release(2)
}

// What is acquired and cancelled in the same instant is either had or not.
func TestCancelRacesTheRelease(t *testing.T) {
	name := semName(t)
	holder, s := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	for i := range 300 {
		from := holder
		if i%2 == 0 {
			from = s
		}
		must(t, from.Acquire(t.Context(), 2))
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, s, 3)
		if i%3 == 0 {
			lineHas(t, s, 1)
		}
		go cancel()
		from.Release(2)
		if err := finish(t, w); err == nil {
			s.Release(3)
		} else if err != context.Canceled {
			t.Fatal(err)
		}
		wantTry(t, s, 3, true)
		s.Release(3)
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

// Goroutines on several objects acquire at random, with contexts that end and without, all weights, and
// none is left behind.
func TestSemaphoreStorm(t *testing.T) {
	const size = 3
	name := semName(t)
	sems := []*FileSemaphore{newSemaphore(t, name, size), newSemaphore(t, name, size), newSemaphore(t, name, size)}
	var inUse atomic.Int64
	storm := start(func() error {
		hammer(t, 12, 250, func(int) {
			s, n := sems[rand.N(len(sems))], rand.Int64N(size+1)
			ctx, cancel := t.Context(), func() {}
			if rand.N(2) == 0 {
				ctx, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond))
			}
			defer cancel()
			if rand.N(8) == 0 {
				if !s.TryAcquire(n) {
					return
				}
			} else if err := s.Acquire(ctx, n); err == context.DeadlineExceeded {
				return
			} else if err != nil {
				t.Error(err)
				return
			}
			if inUse.Add(n) > size {
				t.Error("too many units in use")
			}
			if rand.N(2) == 0 {
				time.Sleep(rand.N(300 * time.Microsecond))
			}
			inUse.Add(-n)
			s.Release(n)
		})
		return nil
	})
	must(t, finish(t, storm))
	for _, s := range sems {
		wantTry(t, s, size, true)
		s.Release(size)
	}
}

func TestKilledProcessFreesItsUnits(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 5)
	a, b := startAcquirer(t, name, 5), startAcquirer(t, name, 5)
	a.Ask("acquire 2", "acquire 2 ok")
	b.Ask("acquire 1", "acquire 1 ok")
	wantTry(t, s, 1, true)
	three := acquiring(t.Context(), s, 3)
	pending(t, three)
	a.Kill()
	must(t, finish(t, three))
	wantTry(t, s, 1, false) // exactly its units
	s.Release(4)
	b.Ask("release 1", "release 1 ok")
}

func TestKilledHeadOfTheQueue(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 3)
	wantTry(t, s, 2, true)
	p := startAcquirer(t, name, 3)
	p.Say("acquire 3") // and takes one
	waitFor(t, "a head", func() bool {
		s.lock()
		defer s.unlock()
		return s.gate.waiting.gateTaken(exclusive)
	})
	w := acquiring(t.Context(), s, 1)
	pending(t, w)
	p.Kill()
	must(t, finish(t, w))
	s.Release(3)
}

func TestSizeIsOneForAll(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 4)
	refused := func(size int64) {
		t.Helper()
		_, err := NewFileSemaphore(name, size)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || !strings.Contains(err.Error(), "size 4") || !strings.Contains(err.Error(), fmt.Sprint("size ", size)) {
			t.Errorf("%d: %v", size, err)
		}
	}
	refused(3)
	refused(14)
	p := proc.Start("acquirer", name, "5")
	defer p.Kill()
	if line, _ := p.Line(patience); !strings.Contains(line, "size 4") {
		t.Error(line)
	}
	// Also while somebody waits, and without waiting for that.
	must(t, s.Acquire(t.Context(), 4))
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	refused(0)
	must(t, newSemaphore(t, name, 4).gate.current(clock()))
	s.Release(4)
	must(t, finish(t, w))
	s.Release(1)
}

func TestNewSizeHoldsOnceNobodyUsesTheOld(t *testing.T) {
	name := semName(t)
	for _, size := range []int64{4, 3, 12, 1, 0, 1 << 62} {
		s, err := NewFileSemaphore(name, size)
		must(t, err)
		if size > 0 {
			wantTry(t, s, 1, true)
			s.Release(1)
		}
		must(t, s.Close())
	}
	p := startAcquirer(t, name, 7)
	p.Ask("acquire 7", "acquire 7 ok")
	p.Kill()
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	s.Release(2)
	// Whatever the file says.
	other := semName(t)
	must(t, os.WriteFile(other+".gate.lock", []byte("something else\n"), 0o600))
	newSemaphore(t, other, 2)
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

func TestSemaphoreClose(t *testing.T) {
	name := semName(t)
	s, err := NewFileSemaphore(name, 1)
	must(t, err)
	wantTry(t, s, 1, true)
	if err := s.Close(); !errors.Is(err, errInUse) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 1)
	becomesHead(t, s)
	s.used-- // as if only waited for
	if err := s.Close(); !errors.Is(err, errInUse) {
		t.Error(err)
	}
	s.used++
	cancel()
	finish(t, w)
	s.Release(1)
	must(t, s.Close())
	for what, err := range map[string]error{"Close": s.Close(), "Acquire": s.Acquire(t.Context(), 1)} {
		if !errors.Is(err, fs.ErrClosed) || !strings.Contains(err.Error(), name) {
			t.Error(what, err)
		}
	}
	func() {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, fs.ErrClosed) {
				t.Error(err)
			}
		}()
		s.TryAcquire(1)
	}()
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

// Units give the happens-before edge, between objects too: the race detector watches.
func TestUnitsOrderMemory(t *testing.T) {
	name := semName(t)
	sems := []*FileSemaphore{newSemaphore(t, name, 1), newSemaphore(t, name, 1)}
	n := 0
	hammer(t, 4, 50, func(i int) {
		s := sems[i%2]
		if err := s.Acquire(t.Context(), 1); err != nil {
			t.Error(err)
			return
		}
		n++
		s.Release(1)
	})
	if n != 200 {
		t.Error(n)
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
