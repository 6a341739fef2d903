//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() {
	children["crowd of acquirers"] = crowdOfAcquirers
	children["slot holder"] = slotHolder
}

// The order holds among the goroutines of a process. Between objects and
// processes, waiters at least do not overtake the head.
func TestSemaphoreServesInOrder(t *testing.T) {
	needKernelWait(t) // waiters that poll may overtake each other
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	must(t, s.Acquire(t.Context(), 4))
	p := startAcquirer(t, name, 4)
	first := acquiring(t.Context(), s, 3)
	becomesHead(t, s)
	second := acquiring(t.Context(), s, 1) // there are enough units for it sooner
	queueHas(t, s, 2)
	wantTry(t, s, 0, false)
	p.Ask("try 0", "try 0 already locked")
	p.Say("acquire 2")
	third := acquiring(t.Context(), other, 0)
	queueHas(t, other, 1)
	s.Release(2)
	pending(t, first)
	pending(t, second)
	wantTry(t, s, 1, false)
	wantTry(t, other, 1, false)
	p.Ask("try 1", "try 1 already locked")
	if line, ok := p.Line(moment); ok {
		t.Fatal(line)
	}
	s.Release(1) // now the first has three
	must(t, finish(t, first))
	pending(t, second)
	s.Release(3) // enough for all others, in whatever order they are
	p.Expect("acquire 2 ok")
	must(t, finish(t, third))
	must(t, finish(t, second))
	s.Release(2)
	p.Ask("release 2", "release 2 ok")
	wantTry(t, other, 4, true)
	other.Release(4)
}

func TestCanceledAcquiresLeaveNothing(t *testing.T) {
	name := semName(t)
	holder, s := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, holder, 2, true)
	storm := func() {
		hammer(t, 8, 40, func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			defer cancel()
			if s.Acquire(ctx, int64(2+i%2)) == nil {
				t.Error("acquired more units than are free")
			}
		})
	}
	storm() // opens what stays open
	fds, goroutines, threads := descriptors(t, "self"), runtime.NumGoroutine(), threadCount(t, "self")
	storm()
	waitFor(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	if !isLocal(s) {
		fds += 3 // a slot that was abandoned in the first storm may be open again
	}
	waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds })
	if n := threadCount(t, "self"); n > threads+10 { // the runtime keeps threads, and reuses them
		t.Errorf("%d threads, were %d", n, threads)
	}
	waitFor(t, "two units are locked, and nothing else", func() bool {
		slots, others := lockedFiles(t, s)
		return slots == 2 && len(others) == 0
	})
	wantTry(t, s, 1, true)
	s.Release(1)
	holder.Release(2)
	if slots, _ := lockedFiles(t, s); slots != 0 {
		t.Errorf("%d slot files are locked after the release", slots)
	}
}

func TestSemaphoreCloseLeavesNoDescriptor(t *testing.T) {
	name := semName(t)
	fds := 0
	for i := range 5 {
		s, err := NewFileSemaphore(name, 2)
		must(t, err)
		must(t, s.Acquire(t.Context(), 2))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if s.Acquire(ctx, 1) == nil {
			t.Error("acquired more units than the size")
		}
		cancel()
		s.Release(2)
		must(t, s.Close())
		if newSemaphoreError(filepath.Join(name, "missing"), 2) == nil {
			t.Error("no error for a missing directory")
		}
		if i == 1 { // the process has opened what stays open
			fds = descriptors(t, "self")
		}
	}
	if now := descriptors(t, "self"); now != fds {
		t.Errorf("%d descriptors, were %d", now, fds)
	}
}

func TestCloseDuringReleaseLeavesNoDescriptor(t *testing.T) {
	name := semName(t)
	newSemaphore(t, name, 2)
	fds := descriptors(t, "self")
	for range 100 {
		s, err := NewFileSemaphore(name, 2)
		must(t, err)
		must(t, s.Acquire(t.Context(), 2))
		released := start(func() error { s.Release(2); return nil })
		for s.Close() != nil {
		}
		must(t, finish(t, released))
	}
	if n := descriptors(t, "self"); n > fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}

// A release that still unlocks slots, or tells waiters of them, needs the files.
func TestCloseFailsDuringRelease(t *testing.T) {
	for _, n := range []int64{1, 2} {
		s, err := NewFileSemaphore(semName(t), 2)
		must(t, err)
		must(t, s.Acquire(t.Context(), n))
		waiter := openGateOf(t, s)
		must(t, waiter.waiting.try(shared)) // as if it were the head
		s.mu.Lock()
		slots, unlocked := s.releaseLocked(n)
		s.mu.Unlock()
		if len(slots) == 0 {
			t.Fatal("the release has nothing left to do")
		}
		wantPathError(t, s.Close(), "close", s.name, errInUse)
		s.finishRelease(slots, unlocked)
		must(t, s.Close())
	}
}

// Close fails while a goroutine waits, even if no unit is acquired through the
// same object.
func TestSemaphoreCloseFailsWhileWaiting(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	wantTry(t, other, 1, true)
	turn := newMutex(t, name+".queue.lock")
	turn.Lock() // the waiter does not become the head
	w := acquiring(t.Context(), s, 1)
	queueHas(t, s, 1)
	if s.Close() == nil {
		t.Fatal("closed while a goroutine waits")
	}
	turn.Unlock()
	other.Release(1)
	must(t, finish(t, w))
	s.Release(1)
}

// crowdOfAcquirers waits for units with many goroutines.
func crowdOfAcquirers(args []string) {
	s := Must(NewFileSemaphore(args[0], 2))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 200 {
		background(&wg, func() { s.Acquire(ctx, 1) })
	}
	for queuedFor(s) < 200 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("waiting")
	bufio.NewReader(os.Stdin).ReadString('\n')
	cancel()
	wg.Wait()
	Must(0, s.Close())
	fmt.Println("gone")
}

// Waiting for units takes few threads and nearly no CPU time.
func TestWaitForUnitsIsCheap(t *testing.T) {
	needKernelWait(t)
	if !isLocal(newSemaphore(t, semName(t), 1)) {
		t.Skip("the head polls on a remote file system")
	}
	name := semName(t)
	holder := newSemaphore(t, name, 2)
	wantTry(t, holder, 2, true)
	var ps []*proc.Process
	for range 3 {
		p := proc.Start("crowd of acquirers", name)
		t.Cleanup(p.Kill)
		p.Expect("waiting")
		ps = append(ps, p)
	}
	time.Sleep(300 * time.Millisecond)
	var before []int
	for _, p := range ps {
		pid := strconv.Itoa(p.Pid())
		if n := threadCount(t, pid); n > 15 {
			t.Errorf("%d threads", n)
		}
		before = append(before, switches(t, pid))
	}
	time.Sleep(2 * time.Second)
	heads := 0
	for i, p := range ps {
		n := switches(t, strconv.Itoa(p.Pid())) - before[i]
		// The head looks every 100 ms. The runtime needs several
		// context switches for each look, and many on a busy machine.
		if n > 5 {
			heads++
		}
		if n > 5000 { // with short pauses only, there would be ten times as many
			t.Errorf("%d context switches in 2 s of waiting", n)
		}
	}
	if heads > 1 {
		t.Errorf("%d processes wake up while they wait, want only that of the head", heads)
	}
	for _, p := range ps {
		p.Ask("cancel", "gone")
	}
	holder.Release(2)
}

// The head wakes when the file is closed, not when its pause is over.
func TestReleaseWakesAnotherProcess(t *testing.T) {
	needKernelWait(t)
	name := semName(t)
	s := newSemaphore(t, name, 2)
	if !isLocal(s) {
		t.Skip("the head polls on a remote file system")
	}
	rounds := 5
	if longtest.Enabled() {
		rounds = 31
	}
	p := startAcquirer(t, name, 2)
	var took []time.Duration
	for range rounds {
		must(t, s.Acquire(t.Context(), 2))
		p.Say("acquire 2")
		time.Sleep(2 * longestPause) // its pauses are long by now
		begin := time.Now()
		s.Release(2)
		p.Expect("acquire 2 ok")
		took = append(took, time.Since(begin))
		p.Ask("release 2", "release 2 ok")
	}
	if m := median(took); m > longestPause/4 {
		t.Errorf("a release wakes another process after %v in the median", m)
	}
}

// slotHolder locks a slot file by flock(2), and unlocks it without closing it.
func slotHolder(args []string) {
	f := Must(os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o600))
	Must(0, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	fmt.Println("held")
	in := bufio.NewReader(os.Stdin)
	in.ReadString('\n')
	unix.Flock(int(f.Fd()), unix.LOCK_UN)
	fmt.Println("unlocked")
	in.ReadString('\n')
}

// Other programs may unlock a slot file without closing it.
func TestHeadNoticesUnlockWithoutClose(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 1)
	p := proc.Start("slot holder", s.slotPath(0))
	t.Cleanup(p.Kill)
	p.Expect("held")
	w := acquiring(t.Context(), s, 1)
	pending(t, w)
	p.Ask("", "unlocked")
	must(t, finish(t, w))
	s.Release(1)
}

func TestSemaphoreWithoutDescriptors(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 3)
	wantTry(t, s, 1, true)
	restore := noDescriptors(t)
	err := s.Acquire(t.Context(), 2)
	newErr := newSemaphoreError(semName(t), 1)
	restore()
	var pathErr *fs.PathError
	if !errors.Is(err, unix.EMFILE) || !errors.As(err, &pathErr) || pathErr.Path != s.slotPath(1) {
		t.Errorf("Acquire returned %v, want %s: %v", err, s.slotPath(1), unix.EMFILE)
	}
	if !errors.Is(newErr, unix.EMFILE) {
		t.Errorf("NewFileSemaphore returned %v, want %v", newErr, unix.EMFILE)
	}
	wantTry(t, s, 2, true)
	s.Release(3)
}

// A call that fails for want of descriptors closes the slot files that it
// opened in vain.
func TestFailedAcquireLeavesDescriptors(t *testing.T) {
	s := newSemaphore(t, semName(t), 1000)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 200
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if err := s.Acquire(t.Context(), 500); !errors.Is(err, unix.EMFILE) {
		t.Errorf("Acquire returned %v, want %v", err, unix.EMFILE)
	}
	f, err := os.Open("/dev/null")
	must(t, err)
	f.Close()
	wantTry(t, s, 1, true)
	s.Release(1)
}

// The file of the size has room for any other size.
func TestSemaphoreOnFullDisk(t *testing.T) {
	needRoot(t)
	dir := mount(t, "none", "tmpfs", 0, "size=16k")
	name := filepath.Join(dir, "sem")
	must(t, newSemaphoreError(name, 3))
	fill := Must(os.Create(filepath.Join(dir, "fill")))
	var err error
	for err == nil {
		_, err = fill.Write(make([]byte, 512))
	}
	must(t, fill.Close())
	err = newSemaphoreError(filepath.Join(dir, "other"), 3)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "other.gate.lock") {
		t.Errorf("NewFileSemaphore returned %v, want other.gate.lock: %v", err, unix.ENOSPC)
	}
	s := newSemaphore(t, name, 12345)
	wantTry(t, s, 3, true)
	s.Release(3)
}

// A user who can only read the files can acquire and wait, but cannot change
// the size.
func TestSemaphoreSharedWithReadOnlyUser(t *testing.T) {
	needRoot(t)
	name := filepath.Join(openDir(t, 0o755), "sem")
	s, err := NewFileSemaphore(name, 2, WithPerm(0o644))
	must(t, err)
	wantTry(t, s, 2, true)
	p := asNobody(t, "acquirer", name, "2")
	p.Expect("ready")
	p.Ask("try 1", "try 1 already locked")
	p.Say("acquire 2")
	waitFor(t, "the head", func() bool { return marked(s) })
	s.Release(1)
	time.Sleep(checkInterval)
	wantTry(t, s, 1, false)
	s.Release(1)
	p.Expect("acquire 2 ok")
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	p.Ask("release 2", "release 2 ok")
	must(t, finish(t, w))
	s.Release(1)
	p.Kill()
	must(t, s.Close())
	line, _ := asNobody(t, "acquirer", name, "3").Line(patience)
	if !strings.Contains(line, "size 2") || !strings.Contains(line, "size 3") {
		t.Errorf("another size: %s", line)
	}
}

// A process that gave up the right to open the files goes on with the open
// ones, also when another process waits.
func TestSemaphoreAfterRightsGivenUp(t *testing.T) {
	needRoot(t)
	name := semName(t)
	must(t, os.Chmod(filepath.Dir(name), 0o700))
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	wantTry(t, s, 1, true)
	w := acquiring(t.Context(), other, 1)
	becomesHead(t, other)
	must(t, finish(t, start(func() error {
		runtime.LockOSThread() // the thread ends with the goroutine
		unix.Setfsuid(65534)
		s.Release(1)
		if err := <-w; err != nil {
			return err
		}
		other.Release(1)
		return s.Acquire(t.Context(), 1)
	})))
	s.Release(1)
}

func TestAcquirePanicsWithNilContext(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		var none context.Context
		s.Acquire(none, 1)
	}()
	wantTry(t, s, 1, true)
	s.Release(1)
}
