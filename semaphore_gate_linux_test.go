//go:build !interlock_bsd

package interlock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/need"
	"golang.org/x/sys/unix"
)

// The gate was replaced, and a process keeps the new one busy, as if it were
// changing the size. Until it is ready, no call acquires anything by the old
// gate.
func TestBusyNewGateAdmitsNoCaller(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 1, true) // opens a slot
	s.Release(1)
	must(t, os.Remove(name+".gate.lock"))
	gate := openGateOf(t, s)
	must(t, gate.use.try(exclusive))
	time.Sleep(checkInterval)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := s.Acquire(ctx, 1); err != context.DeadlineExceeded {
		t.Errorf("Acquire returned %v", err)
	}
	wantTry(t, s, 1, false)
	w := acquiring(t.Context(), s, 1)
	pending(t, w)
	must(t, gate.use.unlock())
	must(t, finish(t, w))
	s.Release(1)
}

// When the gate is replaced, the head sets its mark at the new one, too.
func TestHeadMarksNewGate(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 1, true)
	w := acquiring(t.Context(), s, 2)
	becomesHead(t, s)
	must(t, os.Remove(name+".gate.lock"))
	third := newSemaphore(t, name, 2)
	waitFor(t, "the mark", func() bool { return marked(third) })
	time.Sleep(checkInterval)
	wantTry(t, third, 0, false)
	s.Release(1)
	must(t, finish(t, w))
	s.Release(2)
}

// A try fails while another process waits, even if enough units are free. After
// a release has seen the waiter, the process no longer relies on an earlier
// check.
func TestTryAcquireFailsWhileAnotherWaits(t *testing.T) {
	name := semName(t)
	s, waiter := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	if !isLocal(s) {
		t.Skip("a release does not look for waiters on a remote file system")
	}
	wantTry(t, s, 2, true)
	s.Release(1)
	must(t, waiter.gate.waiting.try(shared)) // as if it were the head
	time.Sleep(checkInterval)
	for n := range int64(3) {
		wantTry(t, s, n, false)
	}
	s.setClear(clock() + time.Hour) // it has just seen that no process waits
	s.Release(1)
	wantTry(t, s, 1, false)
	must(t, waiter.gate.waiting.unlock())
	wantTry(t, s, 3, true)
	s.Release(3)
}

// While another process holds the collect lock, a try fails, and other calls
// wait in the queue.
func TestAcquireWhileAnotherCollects(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	wantTry(t, other, 4, true)
	must(t, other.gate.collect.try(exclusive))
	for _, n := range []int64{1, 2} {
		w, err := s.enter(n, false)
		must(t, err)
		if collecting, err := s.tryPass(t.Context()); !collecting || err != ErrLocked {
			t.Errorf("tryPass for %d units: collecting %t, error %v", n, collecting, err)
		}
		s.finish(t.Context(), w, ErrLocked)
	}
	wantTry(t, s, 1, false)
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	other.Release(1)
	must(t, finish(t, w))
	other.Release(1)
	wantTry(t, s, 2, false)
	must(t, other.gate.collect.unlock())
	other.Release(2)
	s.Release(1)
}

// A try outlasts another process that holds the collect lock for a moment.
func TestTryAcquireWhileAnotherCollectsBriefly(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	ctx, cancel := context.WithCancel(t.Context())
	collecting := start(func() error {
		for ctx.Err() == nil {
			if other.gate.collect.try(exclusive) == nil {
				other.gate.collect.unlock()
			}
		}
		return nil
	})
	failed := 0
	for range 2000 {
		if s.TryAcquire(2) {
			s.Release(2)
		} else {
			failed++
		}
	}
	cancel()
	finish(t, collecting)
	if failed > 2 { // the other goroutine may have lost its processor for long
		t.Errorf("%d of 2000 tries failed", failed)
	}
}

// A process that tries for more units than are free collects some, again and
// again, and gives them back. That does not make the tries of others fail. Nor
// does a process that acquires and releases one unit. The same is true if all
// of them can only read the files.
func TestTryAcquireWhileAnotherCollectsInVain(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		for n := range int64(2) {
			if readOnly && n == 0 && !longtest.Enabled() {
				continue
			}
			t.Run(fmt.Sprintf("readOnly=%t,units=%d", readOnly, n+1), func(t *testing.T) {
				tryWhileAnotherCollects(t, readOnly, n+1)
			})
		}
	}
}

func tryWhileAnotherCollects(t *testing.T, readOnly bool, units int64) {
	dir, create := tempDir(t), newSemaphore
	if readOnly {
		needRoot(t)
		dir, create = openDir(t, 0o755), newSemaphoreOfNobody
	}
	name := filepath.Join(dir, "sem")
	holder := newSemaphore(t, name, 4, WithPerm(0o644))
	wantTry(t, holder, 4, true)
	holder.Release(2)
	greedy, modest, s := create(t, name, 4), create(t, name, 4), create(t, name, 4)
	if s.gate.file.writable == readOnly {
		t.Fatalf("the gate is writable: %t", s.gate.file.writable)
	}
	if readOnly && s.gate.collect.at != wholeFile {
		holder.Release(2)
		t.Skip("only on a file system that is known to be local")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var others sync.WaitGroup
	background(&others, func() {
		for ctx.Err() == nil {
			if greedy.TryAcquire(3) {
				t.Error("acquired 3 units when 2 were free")
			}
		}
	})
	if units == 1 { // then there are enough units for both
		background(&others, func() {
			for ctx.Err() == nil {
				if modest.TryAcquire(1) {
					modest.Release(1)
				}
			}
		})
	}
	duration := 300 * time.Millisecond
	if longtest.Enabled() {
		duration = time.Second
	}
	tries, failed := 0, 0
	for begin := time.Now(); time.Since(begin) < duration; tries++ {
		if s.TryAcquire(units) {
			s.Release(units)
		} else {
			failed++
		}
	}
	cancel()
	others.Wait()
	holder.Release(2)
	// The other goroutines may lose their processors.
	if failed > 20+tries/500 {
		t.Errorf("%d of %d tries failed", failed, tries)
	}
}

// newSemaphoreOfNobody is newSemaphore for a user who does not own the files.
func newSemaphoreOfNobody(t testing.TB, name string, size int64, opts ...Option) (s *FileSemaphore) {
	t.Helper()
	must(t, <-start(func() error {
		runtime.LockOSThread() // the thread ends with the goroutine
		unix.Setfsgid(65534)
		unix.Setfsuid(65534)
		var err error
		s, err = NewFileSemaphore(name, size, opts...)
		return err
	}))
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// On overlayfs, a file that is open for reading only does not count as local,
// and the same file that is open for writing does. A process of the first kind
// wakes one of the second kind all the same.
func TestReleaseByReaderOnOverlayfsWakesHead(t *testing.T) {
	needRoot(t)
	base, dir := mount(t, "tmpfs", "tmpfs", 0, ""), openDir(t, 0o755)
	for _, d := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	layers := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base)
	if err := unix.Mount("overlay", dir, "overlay", 0, layers); err != nil {
		need.Skip(t, "cannot mount overlayfs:", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	name := filepath.Join(dir, "sem")
	s := newSemaphore(t, name, 1, WithPerm(0o644))
	wantTry(t, s, 1, true) // creates the slot file
	s.Release(1)
	reader := newSemaphoreOfNobody(t, name, 1)
	if isLocal(reader) {
		t.Fatal("the gate of the reader counts as local")
	}
	wakesHead(t, s, func() { must(t, reader.Acquire(t.Context(), 1)) }, func() { reader.Release(1) })
}

// A head that could not look at any slot yet looks again soon.
func TestHeadLooksAgainWhenNewGateIsFree(t *testing.T) {
	sleepLong(t)
	name := semName(t)
	s := newSemaphore(t, name, 1)
	must(t, os.Remove(name+".gate.lock"))
	gate := openGateOf(t, s)
	must(t, gate.use.try(exclusive))
	time.Sleep(checkInterval)
	w := acquiring(t.Context(), s, 1)
	waitFor(t, "the head", func() bool { return isHead(s) })
	pending(t, w)
	must(t, finishSoon(t, w, func() { must(t, gate.use.unlock()) }))
	s.Release(1)
}
