//go:build !interlock_bsd

package interlock

import (
	"bufio"
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
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/interlock-go/interlock/internal/portalocker"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() {
	children["ledger"] = ledger
	children["semcrowd"] = semCrowd
	children["slotheld"] = slotHeld
}

// In the order in which they came, over goroutines, objects and processes.
func TestSemaphoreServesInOrder(t *testing.T) {
	needKernelWait(t) // those who poll may overtake each other
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	must(t, s.Acquire(t.Context(), 4))
	p := startAcquirer(t, name, 4)
	first := acquiring(t.Context(), s, 3)
	becomesHead(t, s)
	second := acquiring(t.Context(), s, 1) // which could be had first
	lineHas(t, s, 2)
	wantTry(t, s, 0, false)
	p.Ask("try 0", "try 0 already locked")
	p.Say("acquire 2")
	third := acquiring(t.Context(), other, 0)
	lineHas(t, other, 1)
	s.Release(2)
	pending(t, first)
	pending(t, second)
	wantTry(t, s, 1, false)
	wantTry(t, other, 1, false)
	p.Ask("try 1", "try 1 already locked")
	if line, ok := p.Line(moment); ok {
		t.Fatal(line)
	}
	s.Release(1) // the first has three now
	must(t, finish(t, first))
	pending(t, second)
	s.Release(3) // which is enough for the others: between processes the order is not exact
	p.Expect("acquire 2 ok")
	must(t, finish(t, third))
	must(t, finish(t, second))
	s.Release(2)
	p.Ask("release 2", "release 2 ok")
	wantTry(t, other, 4, true)
	other.Release(4)
}

// ledger acquires and releases units at random, often, and keeps count in memory that it shares with the
// other processes.
func ledger(args []string) {
	name, path := args[0], args[1]
	size, _ := strconv.ParseInt(args[2], 10, 64)
	f := Must(os.OpenFile(path, os.O_RDWR, 0))
	inUse := (*atomic.Int64)(unsafe.Pointer(&Must(unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))[0]))
	var wg sync.WaitGroup
	for i := range 4 {
		s := Must(NewFileSemaphore(name, size))
		if i >= 2 { // two share one
			defer s.Close()
		}
		for range 1 + i%2 {
			wg.Go(func() {
				for range 150 {
					n := rand.N(size) + 1
					if rand.N(3) == 0 {
						if !s.TryAcquire(n) {
							continue
						}
					} else {
						ctx, cancel := context.WithTimeout(context.Background(), rand.N(20*time.Millisecond))
						err := s.Acquire(ctx, n)
						cancel()
						if err == context.DeadlineExceeded {
							continue
						}
						Must(0, err)
					}
					if now := inUse.Add(n); now > size {
						fmt.Println(now, "in use")
					}
					time.Sleep(rand.N(100 * time.Microsecond))
					inUse.Add(-n)
					s.Release(n)
				}
			})
		}
	}
	wg.Wait()
}

func TestNeverMoreUnitsInUseThanThereAre(t *testing.T) {
	const size = 5
	name, counter := semName(t), lockPath(t)
	must(t, os.WriteFile(counter, make([]byte, 8), 0o600))
	var ps []*proc.Process
	for range 3 {
		ps = append(ps, proc.Start("ledger", name, counter, strconv.Itoa(size)))
	}
	for _, p := range ps {
		t.Cleanup(p.Kill)
	}
	for _, p := range ps {
		if line, ok := p.Line(patience); ok {
			t.Error(line)
		}
		must(t, p.Close())
	}
	s := newSemaphore(t, name, size)
	wantTry(t, s, size, true) // nothing is lost
	s.Release(size)
}

// Units of killed processes come back, each exactly once, however often that happens.
func TestKillsLoseNothing(t *testing.T) {
	const size = 4
	name, counter := semName(t), lockPath(t)
	must(t, os.WriteFile(counter, make([]byte, 8), 0o600))
	s := newSemaphore(t, name, size)
	for range 30 {
		p := proc.Start("ledger", name, counter, strconv.Itoa(size))
		time.Sleep(rand.N(20 * time.Millisecond))
		w := acquiring(t.Context(), s, size)
		p.Kill()
		must(t, finish(t, w))
		wantTry(t, s, 1, false)
		s.Release(size)
	}
}

func TestSemaphoreCancelsLeaveNothingBehind(t *testing.T) {
	name := semName(t)
	holder, s := newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, holder, 2, true)
	storm := func() {
		hammer(t, 8, 40, func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			defer cancel()
			if s.Acquire(ctx, int64(2+i%2)) == nil {
				t.Error("too many units")
			}
		})
	}
	storm() // which opens what is kept
	fds, goroutines, threads := descriptors(t, "self"), runtime.NumGoroutine(), threadCount(t, "self")
	storm()
	waitFor(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds })
	if n := threadCount(t, "self"); n > threads+10 { // the runtime keeps its threads, but needs no more for more cancels
		t.Errorf("%d threads, were %d", n, threads)
	}
	waitFor(t, "nobody waits, and two use it", func() bool {
		uses := kernelLocks(t, name+".gate.lock")
		for _, l := range uses {
			if !strings.HasSuffix(l, fmt.Sprintf("%d %[1]d", int64(gateByte+1))) {
				return false
			}
		}
		return len(uses) == 2 && len(kernelLocks(t, name+".queue.lock")) == 0
	})
	wantTry(t, s, 1, true)
	s.Release(1)
	holder.Release(2)
	for k := range int64(3) {
		if l := kernelLocks(t, s.slotPath(k)); len(l) != 0 {
			t.Error("left: ", l)
		}
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
			t.Error("too many units")
		}
		cancel()
		s.Release(2)
		must(t, s.Close())
		if _, err := NewFileSemaphore(filepath.Join(name, "missing"), 2); err == nil {
			t.Error("no error")
		}
		if i == 1 { // what is kept is there
			fds = descriptors(t, "self")
		}
	}
	if now := descriptors(t, "self"); now != fds {
		t.Errorf("%d descriptors, were %d", now, fds)
	}
}

// semCrowd waits for units with many goroutines, and says so.
func semCrowd(args []string) {
	s := Must(NewFileSemaphore(args[0], 2))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() { s.Acquire(ctx, 1) })
	}
	for s.line.n.Load() < 200 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("waiting")
	bufio.NewReader(os.Stdin).ReadString('\n')
	cancel()
	wg.Wait()
	Must(0, s.Close())
	fmt.Println("gone")
}

func TestWaitingForUnitsTakesFewThreadsAndNoCPU(t *testing.T) {
	needKernelWait(t)
	if !newSemaphore(t, semName(t), 1).local {
		t.Skip("the head polls where the file system is not known to be local")
	}
	name := semName(t)
	holder := newSemaphore(t, name, 2)
	wantTry(t, holder, 2, true)
	var ps []*proc.Process
	for range 3 {
		p := proc.Start("semcrowd", name)
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
		if n > 5 {
			heads++ // looks every 100 ms for who does not close, which takes the runtime several each, and on a busy machine many
		}
		if n > 5000 { // who is woken by nothing but short pauses needs ten times as many
			t.Errorf("%d wake-ups in 2 s of waiting", n)
		}
	}
	if heads > 1 {
		t.Errorf("%d processes wake up while they wait", heads)
	}
	for _, p := range ps {
		p.Ask("cancel", "gone")
	}
	holder.Release(2)
}

// Wake-ups come by the close of the file, and not by the slow poll.
func TestReleaseWakesAnotherProcess(t *testing.T) {
	needKernelWait(t)
	name := semName(t)
	s := newSemaphore(t, name, 2)
	if !s.local {
		t.Skip("the head polls where the file system is not known to be local")
	}
	p := startAcquirer(t, name, 2)
	var took []time.Duration
	for range 21 {
		must(t, s.Acquire(t.Context(), 2))
		p.Say("acquire 2")
		time.Sleep(2 * longestPause) // it sleeps long now
		begin := time.Now()
		s.Release(2)
		p.Expect("acquire 2 ok")
		took = append(took, time.Since(begin))
		p.Ask("release 2", "release 2 ok")
	}
	if m := median(took); m > longestPause/4 {
		t.Errorf("%v in the median", m)
	}
}

// slotHeld holds the first slot file by flock(2), and gives it up as told.
func slotHeld(args []string) {
	f := Must(os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o600))
	Must(0, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	fmt.Println("held")
	bufio.NewReader(os.Stdin).ReadString('\n')
	unix.Flock(int(f.Fd()), unix.LOCK_UN)
	fmt.Println("unlocked")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// A program that gives up a slot without closing its file is noticed too.
func TestSlotUnlockedWithoutClose(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 1)
	p := proc.Start("slotheld", s.slotPath(0))
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
	_, newErr := NewFileSemaphore(semName(t), 1)
	restore()
	var pathErr *fs.PathError
	if !errors.Is(err, unix.EMFILE) || !errors.As(err, &pathErr) || pathErr.Path != s.slotPath(1) {
		t.Error(err)
	}
	if !errors.Is(newErr, unix.EMFILE) {
		t.Error(newErr)
	}
	wantTry(t, s, 2, true)
	s.Release(3)
}

func TestSemaphoreOnAFullDisk(t *testing.T) {
	needRoot(t)
	dir := mount(t, "none", "tmpfs", 0, "size=16k")
	name := filepath.Join(dir, "sem")
	s, err := NewFileSemaphore(name, 3)
	must(t, err)
	must(t, s.Close())
	fill := Must(os.Create(filepath.Join(dir, "fill")))
	for err = nil; err == nil; {
		_, err = fill.Write(make([]byte, 512))
	}
	must(t, fill.Close())
	if _, err := NewFileSemaphore(filepath.Join(dir, "other"), 3); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "other.gate.lock") {
		t.Error(err)
	}
	s = newSemaphore(t, name, 12345) // which there is room for
	wantTry(t, s, 3, true)
	s.Release(3)
}

// A user who can only read the files takes part, but cannot change the size.
func TestSemaphoreOfAnotherUser(t *testing.T) {
	needRoot(t)
	name := filepath.Join(openDir(t, 0o755), "sem")
	s, err := NewFileSemaphore(name, 2, WithPerm(0o644))
	must(t, err)
	wantTry(t, s, 2, true)
	p := asNobody(t, "acquirer", name, "2")
	p.Expect("ready")
	p.Ask("try 1", "try 1 already locked")
	p.Say("acquire 2")
	waitFor(t, "a head", func() bool {
		s.lock()
		defer s.unlock()
		return s.gate.waiting.gateTaken(exclusive)
	})
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
	if line, _ := asNobody(t, "acquirer", name, "3").Line(patience); !strings.Contains(line, "size 2") || !strings.Contains(line, "size 3") {
		t.Error(line)
	}
}

func TestPortalockersSemaphoreSharesTheLimit(t *testing.T) {
	name := semName(t)
	p := portalocker.Start(t)
	acquire, try := "acquire "+name+" 2", "acquire "+name+" 2 0"
	s := newSemaphore(t, name, 2)
	p.Ask(acquire, "ok")
	wantTry(t, s, 2, false)
	wantTry(t, s, 1, true)
	p.Ask(try, "locked")
	two := acquiring(t.Context(), s, 1)
	pending(t, two)
	p.Ask("release", "ok")
	must(t, finish(t, two))
	p.Say(acquire)
	if line, ok := p.Line(moment); ok {
		t.Fatal(line)
	}
	s.Release(1)
	p.Expect("ok")
	w := acquiring(t.Context(), s, 1)
	pending(t, w)
	p.Kill() // and its unit is free
	must(t, finish(t, w))
	s.Release(2)
}

func TestPortalockersLockTakesPart(t *testing.T) {
	path := lockPath(t)
	p := portalocker.Start(t)
	m := newMutex(t, path)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	p.Ask("lock "+path, "ok")
	if m.TryLock() || m.TryRLock() || TryRLock(f) == nil {
		t.Error("two holders")
	}
	w := start(func() error { return m.LockContext(t.Context()) })
	pending(t, w)
	p.Ask("release", "ok")
	must(t, finish(t, w))
	p.Ask("try "+path, "locked")
	p.Ask("tryshared "+path, "locked")
	p.Say("lock " + path)
	if line, ok := p.Line(moment); ok {
		t.Fatal(line)
	}
	m.Unlock()
	p.Expect("ok")
	p.Ask("release", "ok")
	must(t, RLock(t.Context(), f))
	p.Ask("try "+path, "locked")
	p.Ask("tryshared "+path, "ok")
	if m.TryLock() || !m.TryRLock() {
		t.Error("readers do not share")
	}
	m.RUnlock()
	must(t, Unlock(f))
	p.Kill()
	m.Lock()
	m.Unlock()
}

// A head that has given up, since the file system did not answer, leaves everything once, and with
// nothing, whatever the answer is in the end.
func TestHeadWhoseFileSystemAnswersLate(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s := newSemaphore(t, path, 1)
	other := newSemaphore(t, path, 1, WithPollInterval(30*time.Millisecond, 30*time.Millisecond))
	for range 5 {
		must(t, s.Acquire(t.Context(), 1))
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, other, 1)
		becomesHead(t, other)
		stop(t, daemon)
		released := start(func() error { s.Release(1); return nil })
		time.Sleep(60 * time.Millisecond) // its next try gets no answer, and then a unit
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Error(err)
		}
		daemon.Signal(unix.SIGCONT)
		must(t, finish(t, released))
		waitFor(t, "all is undone", func() bool {
			other.lock()
			defer other.unlock()
			return other.used == 0 && len(other.held) == 0 && other.line.empty()
		})
	}
}

func TestSlotsThatCannotBeLocked(t *testing.T) {
	_, path := mountFUSE(t, "unable")
	s := newSemaphore(t, path, 4)
	var fds int
	for i := range 20 {
		err := s.Acquire(t.Context(), 1)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != s.slotPath(0) || errors.Is(err, ErrLocked) {
			t.Fatal(err)
		}
		if i == 0 {
			fds = descriptors(t, "self")
		}
	}
	if n := descriptors(t, "self"); n > fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}

// What an acquisition took that failed for want of descriptors, it gives back.
func TestSemaphoreLeavesDescriptorsToOthers(t *testing.T) {
	s := newSemaphore(t, semName(t), 1000)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 200
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if err := s.Acquire(t.Context(), 500); !errors.Is(err, unix.EMFILE) {
		t.Error(err)
	}
	f, err := os.Open("/dev/null")
	must(t, err)
	f.Close()
	wantTry(t, s, 1, true)
	s.Release(1)
}

// Who replaced the gate may keep it busy: that holds up nobody beyond the context's end.
func TestNewGateIsBusy(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	must(t, os.Remove(name+".gate.lock"))
	f, err := openLockFile(name+".gate.lock", 0o600)
	must(t, err)
	defer f.close()
	use, _, _, err := f.roles("", 0)
	must(t, err)
	must(t, use.tryGate(exclusive))
	time.Sleep(checkInterval)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := s.Acquire(ctx, 1); err != context.DeadlineExceeded {
		t.Error(err)
	}
	wantTry(t, s, 1, false)
	w := acquiring(t.Context(), s, 1)
	pending(t, w)
	use.leaveGate()
	must(t, finish(t, w))
	s.Release(1)
}

// A process that gave up the right to open the files goes on with those it has open, also when
// somebody waits.
func TestSemaphoreWithRightsGivenUp(t *testing.T) {
	needRoot(t)
	name := semName(t)
	must(t, os.Chmod(filepath.Dir(name), 0o700))
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	wantTry(t, s, 1, true)
	w := acquiring(t.Context(), other, 1)
	becomesHead(t, other)
	must(t, finish(t, start(func() error {
		runtime.LockOSThread() // and the thread ends with the goroutine
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

// Who waits for units of its own process only, sleeps.
func TestWaitingForOnesOwnProcess(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	if s.local && !s.queue.file.marked {
		t.Skip("a look leaves nothing behind here")
	}
	wantTry(t, s, 1, true)
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	time.Sleep(2 * longestPause)
	looks, last := 0, time.Duration(0)
	for begin := time.Now(); time.Since(begin) < time.Second; time.Sleep(time.Millisecond) {
		s.lock()
		if at := s.queue.file.knownAt; at != last { // which every look moves on
			looks, last = looks+1, at
		}
		s.unlock()
	}
	if looks > 30 { // and 10 to 20 are right
		t.Errorf("%d looks in a second", looks)
	}
	s.Release(1)
	must(t, finish(t, w))
	s.Release(1)
}

// Granted and cancelled at once, where the file system does not answer the unlock any more.
func TestFollowerDoesNotWaitForTheFileSystem(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	m, err := NewFileRMutex(path)
	must(t, err)
	r, o := m.lock, NewOwner()
	// What one does who locks for others of its owner, up to granting it to them. Its own hold it has given up.
	must(t, r.m.LockContext(t.Context()))
	r.mu.Lock()
	r.waits[o] = nil
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	w := start(func() error { return m.LockContext(ctx, o) })
	following(t, m, o, 1)
	daemon.Ask("", "silent")
	r.mu.Lock()
	f := r.waits[o][0]
	delete(r.waits, o)
	r.owner, r.depth = o, 1
	f.granted = true
	close(f.wake)
	cancel()
	r.mu.Unlock()
	if err := finish(t, w); err != context.Canceled {
		t.Error(err)
	}
	wantDepth(t, m, o, 0)
	daemon.Kill()
	waitFor(t, "unlocked", func() bool { return m.Close() == nil })
}

// A release opens what it has, and nothing that has come to the path meanwhile.
func TestReleaseOpensNothingUnseen(t *testing.T) {
	for i := range 4 {
		moved := i%2 == 1
		if i == 2 {
			withoutProc(t)
		}
		dir := filepath.Join(tempDir(t), "dir")
		must(t, os.Mkdir(dir, 0o700))
		name := filepath.Join(dir, "sem")
		s, waiter := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
		wantTry(t, s, 1, true)
		s.Release(1)
		time.Sleep(2 * ctimeSettled)
		wantTry(t, s, 1, true)                       // the path has just been seen
		must(t, waiter.gate.waiting.tryGate(shared)) // as if it were the head
		defer waiter.gate.waiting.leaveGate()
		path := s.slotPath(0)
		if moved {
			must(t, os.Rename(dir, dir+" of before"))
			must(t, os.Mkdir(dir, 0o700))
		} else {
			must(t, os.Remove(path))
		}
		must(t, unix.Mkfifo(path, 0o600))
		inotify, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		must(t, err)
		defer unix.Close(inotify)
		_, err = unix.InotifyAddWatch(inotify, path, unix.IN_OPEN)
		must(t, err)
		s.Release(1)
		if n, err := unix.Read(inotify, make([]byte, 4096)); err != unix.EAGAIN {
			t.Errorf("%d bytes of events, %v: the FIFO has been opened", n, err)
		}
	}
}

func withoutProc(t *testing.T) {
	was := openFiles
	openFiles = filepath.Join(t.TempDir(), "proc")
	t.Cleanup(func() { openFiles = was })
}

// withBells is a semaphore that has n units, and a bell for each.
func withBells(t *testing.T, n, size int64) *FileSemaphore {
	name := semName(t)
	s, waiter := newSemaphore(t, name, size), newSemaphore(t, name, size)
	if !s.local {
		t.Skip("where who waits polls, bells are for nobody")
	}
	must(t, s.Acquire(t.Context(), n))
	must(t, waiter.gate.waiting.tryGate(shared)) // as if it were the head
	s.Release(n)
	must(t, waiter.gate.waiting.leaveGate())
	must(t, s.Acquire(t.Context(), n))
	for _, sl := range s.held {
		if sl.bell == nil {
			t.Fatal("no bell")
		}
	}
	return s
}

// Bells are given up if there are no descriptors for what is needed.
func TestBellsDoNotUseUpTheDescriptors(t *testing.T) {
	s := withBells(t, 3, 5)
	s.Release(1)
	free := Must(unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)) // the first number that is
	unix.Close(free)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = uint64(free)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	for range 3 { // with the slot that was released, and those that were never opened
		wantTry(t, s, 1, true)
	}
	s.Release(5)
}

// After a panic, the semaphore works as before.
func TestNilContextLocksNothing(t *testing.T) {
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

// A head begins with what was noted last, however much that is.
func TestWatcherForgetsAll(t *testing.T) {
	path := lockPath(t)
	w, err := newWatcher()
	must(t, err)
	defer w.close()
	const n = 1000
	for i := range n {
		f := Must(os.Create(path + strconv.Itoa(i%2)))
		if i < 2 {
			Must(w.add(f.Name()))
		}
		f.Close()
	}
	noted := 0
	w.forget(func(int) { noted++ })
	if noted != n {
		t.Errorf("%d events of %d", noted, n)
	}
}
