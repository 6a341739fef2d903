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

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// sleepLong makes heads sleep so long that a wake-up that is missing is seen on the busiest machine, and returns
// after what time they do, and how soon they wake then.
func sleepLong(t *testing.T) (asleep, soon time.Duration) {
	longest, growth := longestPause, pauseGrowth
	longestPause, pauseGrowth = 20*time.Second, 5000 // after 20µs and 100ms
	t.Cleanup(func() { longestPause, pauseGrowth = longest, growth })
	return time.Second / 5, 5 * time.Second
}

// Its own process wakes a head at once, however it sleeps, and so does the end of its context.
func TestOwnReleaseAndCancelWakeTheHead(t *testing.T) {
	asleep, soon := sleepLong(t)
	for _, local := range []bool{true, false} {
		for _, ours := range []bool{true, false} {
			name := semName(t)
			if !local {
				_, name = mountFUSE(t, "works")
			}
			poll := WithPollInterval(longestPause, longestPause) // where it polls
			s, other := newSemaphore(t, name, 2, poll), newSemaphore(t, name, 2)
			must(t, s.Acquire(t.Context(), 1))
			must(t, map[bool]*FileSemaphore{true: s, false: other}[ours].Acquire(t.Context(), 1))
			var released, cancelled []time.Duration
			for range 3 {
				w := acquiring(t.Context(), s, 1)
				time.Sleep(asleep)
				begin := time.Now()
				s.Release(1)
				must(t, finish(t, w))
				released = append(released, time.Since(begin))

				ctx, cancel := context.WithCancel(t.Context())
				w = acquiring(ctx, s, 1)
				time.Sleep(asleep)
				begin = time.Now()
				cancel()
				if err := finish(t, w); err != context.Canceled {
					t.Error(err)
				}
				cancelled = append(cancelled, time.Since(begin))
				waitFor(t, "it leaves the line", func() bool { return s.line.empty() })
			}
			if m := median(released); m > soon {
				t.Errorf("local %t, ours %t: woken by a release after %v", local, ours, m)
			}
			if m := median(cancelled); m > soon {
				t.Errorf("local %t, ours %t: woken by a cancel after %v", local, ours, m)
			}
			s.Release(1)
			if ours {
				s.Release(1)
			} else {
				other.Release(1)
			}
		}
	}
}

// Who is granted units wakes, and does not sleep on since the next one, who is the head at once, has taken the wake-up for its own.
func TestGrantedBesideTheNextHead(t *testing.T) {
	asleep, soon := sleepLong(t)
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	must(t, other.Acquire(t.Context(), 1)) // so that there is a slot to be watched
	defer other.Release(1)
	must(t, s.Acquire(t.Context(), 1))
	for range 8 {
		first := acquiring(t.Context(), s, 1)
		lineHas(t, s, 1)
		second := acquiring(t.Context(), s, 1)
		time.Sleep(asleep)
		for _, w := range []<-chan error{first, second} {
			begin := time.Now()
			s.Release(1)
			must(t, finish(t, w))
			if d := time.Since(begin); d > soon {
				t.Errorf("woke after %v", d)
			}
		}
	}
	s.Release(1)
}

// A head that cannot watch polls as often as it was told.
func TestHeadThatCannotWatch(t *testing.T) {
	asleep, soon := sleepLong(t)
	for _, local := range []bool{true, false} {
		name := semName(t)
		if !local {
			_, name = mountFUSE(t, "works")
		}
		s, other := newSemaphore(t, name, 1, WithPollInterval(time.Millisecond, time.Millisecond)), newSemaphore(t, name, 1)
		if local {
			s.watcher = &watcher{inotify: -1} // as if there were too many watches
			defer func() { s.watcher = nil }()
		}
		var took []time.Duration
		for range 3 {
			must(t, other.Acquire(t.Context(), 1))
			w := acquiring(t.Context(), s, 1)
			time.Sleep(asleep)
			begin := time.Now()
			other.Release(1)
			must(t, finish(t, w))
			took = append(took, time.Since(begin))
			s.Release(1)
		}
		if m := median(took); m > soon {
			t.Errorf("local %t: %v in the median", local, m)
		}
	}
}

// A file may be closed a little before its lock is free, as when a process dies.
func TestSlotThatIsFreeSoonAfterTheClose(t *testing.T) {
	asleep, soon := sleepLong(t)
	s := newSemaphore(t, semName(t), 1)
	var took []time.Duration
	for range 3 {
		f := Must(os.OpenFile(s.slotPath(0), os.O_RDWR|os.O_CREATE, 0o600))
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		w := acquiring(t.Context(), s, 1)
		time.Sleep(asleep)
		must(t, Must(os.Open(f.Name())).Close())
		time.Sleep(2 * time.Millisecond)
		begin := time.Now()
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
		must(t, finish(t, w))
		took = append(took, time.Since(begin))
		s.Release(1)
		f.Close()
	}
	if m := median(took); m > soon {
		t.Errorf("%v in the median", m)
	}
}

// A head marks the new gate, too.
func TestHeadMarksTheNewGate(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 1, true)
	w := acquiring(t.Context(), s, 2)
	becomesHead(t, s)
	must(t, os.Remove(name+".gate.lock"))
	third := newSemaphore(t, name, 2)
	waitFor(t, "a mark", func() bool { return third.gate.waiting.gateTaken(exclusive) })
	time.Sleep(checkInterval)
	wantTry(t, third, 0, false)
	s.Release(1)
	must(t, finish(t, w))
	s.Release(2)
}

// A head whose queue is another file now gives up what it has and queues there.
func TestHeadOfAStaleQueueLetsGo(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	wantTry(t, s, 2, true)
	w := acquiring(t.Context(), s, 4)
	becomesHead(t, s)
	must(t, os.Remove(name+".queue.lock"))
	q := newMutex(t, name+".queue.lock")
	q.Lock()
	waitFor(t, "it lets go", func() bool { return other.TryAcquire(2) })
	pending(t, w)
	other.Release(2)
	q.Unlock()
	s.Release(2)
	must(t, finish(t, w))
	s.Release(4)
}

// Where the file system may not answer, a cancelled head leaves.
func TestCancelledHeadLeavesARemoteQueue(t *testing.T) {
	_, path := mountFUSE(t, "works")
	s, other := newSemaphore(t, path, 1), newSemaphore(t, path, 1)
	must(t, other.Acquire(t.Context(), 1))
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 1)
	becomesHead(t, s)
	cancel()
	if err := finish(t, w); err != context.Canceled {
		t.Error(err)
	}
	waitFor(t, "it leaves", func() bool { return s.line.empty() })
	other.Release(1)
	must(t, finish(t, acquiring(t.Context(), s, 1)))
	s.Release(1)
}

// What passes or joins the line only after its context has ended, is undone.
func TestAcquireWhoseFileSystemAnswersLate(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s := newSemaphore(t, path, 1)
	for _, used := range []int64{0, 1} { // then it passes, or else joins the line
		must(t, s.Acquire(t.Context(), used))
		var other *FileSemaphore
		if used == 1 {
			other = newSemaphore(t, path, 1)
		} else {
			other = s
		}
		stop(t, daemon)
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, other, 1)
		time.Sleep(20 * time.Millisecond)
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Error(err)
		}
		daemon.Signal(unix.SIGCONT)
		other.lock() // once all is undone
		if n := other.used; n != 0 || len(other.held) != 0 || !other.line.empty() {
			t.Errorf("%d used, %d held, %d in line", n, len(other.held), other.line.n.Load())
		}
		other.unlock()
		s.Release(used)
	}
}

// Who fails because somebody is about to give back what it has collected, tries again.
func TestAcquireWhileOthersCollect(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	wantTry(t, other, 4, true) // in vain, perhaps
	must(t, other.gate.collect.tryGate(exclusive))
	s.lock()
	for _, n := range []int64{1, 2} {
		if err := s.pass(n); err != errCollecting {
			t.Error(n, err)
		}
	}
	s.unlock()
	wantTry(t, s, 1, false)
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s) // and does not fail
	other.Release(1)
	must(t, finish(t, w))
	other.Release(1)
	wantTry(t, s, 2, false)
	other.gate.collect.leaveGate()
	other.Release(2)
	s.Release(1)
}

// A collector that is quick does not make a try fail.
func TestTryAcquireWhileOthersCollect(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	ctx, cancel := context.WithCancel(t.Context())
	w := start(func() error {
		for ctx.Err() == nil {
			if other.gate.collect.tryGate(exclusive) == nil {
				other.gate.collect.leaveGate()
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
	finish(t, w)
	if failed > 2 { // the other may have lost its processor for long
		t.Error(failed, "of 2000 failed")
	}
}

// Those who collect in vain, again and again, keep their hands on units that others can have, but make none of
// these fail. That one can have a unit without waiting makes nobody fail either. The gate need not be open for writing.
func TestTryBesideThoseWhoCollectInVain(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		for n := range int64(2) {
			if testing.Short() && readOnly && n == 0 {
				continue
			}
			t.Run(fmt.Sprintf("readOnly=%t/%d", readOnly, n+1), func(t *testing.T) {
				dir, create := tempDir(t), newSemaphore
				if readOnly {
					needRoot(t)
					dir, create = openDir(t, 0o755), newSemaphoreOfNobody
				}
				name := filepath.Join(dir, "sem")
				holder := newSemaphore(t, name, 4, WithPerm(0o644))
				wantTry(t, holder, 4, true)
				holder.Release(2)
				vain, light, s := create(t, name, 4), create(t, name, 4), create(t, name, 4)
				if s.gate.writable == readOnly {
					t.Fatal("may write:", s.gate.writable)
				}
				if readOnly && s.gate.collect.gateAt != byFlock {
					holder.Release(2)
					t.Skip("only where the file is known to be on a local file system")
				}
				ctx, cancel := context.WithCancel(t.Context())
				var others sync.WaitGroup
				others.Go(func() {
					for ctx.Err() == nil {
						if vain.TryAcquire(3) {
							t.Error("three of two")
						}
					}
				})
				if n == 0 { // there are enough for both; one who waits for the collector, if only for a moment, would have priority
					others.Go(func() {
						for ctx.Err() == nil {
							if light.TryAcquire(1) {
								light.Release(1)
							}
						}
					})
				}
				tries, failed := 0, 0
				for begin := time.Now(); time.Since(begin) < time.Second; tries++ {
					if s.TryAcquire(n + 1) {
						s.Release(n + 1)
					} else {
						failed++
					}
				}
				cancel()
				others.Wait()
				holder.Release(2)
				// As above.
				if t.Logf("%d of %d failed", failed, tries); failed > 20+tries/500 {
					t.Fail()
				}
			})
		}
	}
}

// newSemaphoreOfNobody is [newSemaphore] with the rights of an unprivileged user, as far as files are concerned.
func newSemaphoreOfNobody(t testing.TB, name string, size int64, opts ...Option) (s *FileSemaphore) {
	t.Helper()
	must(t, <-start(func() error {
		runtime.LockOSThread() // and the thread ends with the goroutine
		unix.Setfsgid(65534)
		unix.Setfsuid(65534)
		var err error
		s, err = NewFileSemaphore(name, size, opts...)
		return err
	}))
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// What a head has collected, or was given, is its own only while it is at its path. Else it would be granted units
// beside those that others can get there.
func TestHeadIsGrantedNothingThatIsGone(t *testing.T) {
	for own := range int64(3) { // so many of two units are its own process's, which gives them to it
		name := semName(t)
		s, other, third := newSemaphore(t, name, 3), newSemaphore(t, name, 3), newSemaphore(t, name, 3)
		must(t, s.Acquire(t.Context(), own))
		must(t, other.Acquire(t.Context(), 2-own))
		w := acquiring(t.Context(), s, 3)
		has := func(n int64) {
			t.Helper()
			waitFor(t, "it collects", func() bool {
				s.lock()
				defer s.unlock()
				return s.head != nil && s.head.got == n
			})
		}
		has(1)
		if own > 0 {
			s.Release(1)
			has(2)
		}
		s.lock()
		gone := s.held[0].file.path
		s.unlock()
		must(t, os.Remove(gone))
		if own > 1 {
			s.Release(1)
		}
		other.Release(2 - own)
		must(t, finish(t, w))
		wantTry(t, third, 1, false)
		s.Release(3)
		wantTry(t, third, 3, true)
		third.Release(3)
	}
}

// A head that gives up frees its own units, and callers keep theirs: not those that it had, which may be gone.
func TestHeadGivesUpItsOwn(t *testing.T) {
	name := semName(t)
	s, other, third := newSemaphore(t, name, 3), newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, s, 2, true)
	wantTry(t, other, 1, true)
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 2)
	becomesHead(t, s)
	s.Release(1)
	s.lock()
	if s.head.got != 1 {
		t.Error("it was not given the unit")
	}
	s.unlock()
	must(t, os.Remove(s.slotPath(1))) // which was the last
	cancel()
	if err := finish(t, w); err != context.Canceled {
		t.Error(err)
	}
	time.Sleep(checkInterval)
	wantTry(t, third, 2, false)
	wantTry(t, third, 1, true)
	third.Release(1)
	other.Release(1)
	s.Release(1)
}

// wakesTheHead fails if it is not event that makes s get a unit, which hold takes before, but that the head looks
// from time to time.
func wakesTheHead(t *testing.T, s *FileSemaphore, hold, event func()) {
	t.Helper()
	needKernelWait(t)
	if !s.local {
		t.Skip("the head polls where the file system is not known to be local")
	}
	asleep, soon := sleepLong(t)
	for range 3 {
		hold()
		w := acquiring(t.Context(), s, 1)
		time.Sleep(asleep)
		begin := time.Now()
		event()
		must(t, finish(t, w))
		if d := time.Since(begin); d > soon {
			t.Errorf("woke after %v", d)
		}
		s.Release(1)
	}
}

func TestKilledHolderWakesTheHead(t *testing.T) {
	name := semName(t)
	var p *proc.Process
	wakesTheHead(t, newSemaphore(t, name, 1), func() {
		p = startAcquirer(t, name, 1)
		p.Ask("acquire 1", "acquire 1 ok")
	}, func() { p.Kill() })
}

// Who is behind a head that is killed looks at once, and finds what it had.
func TestKilledHeadLetsInTheNext(t *testing.T) {
	needKernelWait(t)
	sleepLong(t)
	name := semName(t)
	s := newSemaphore(t, name, 2)
	if !s.local {
		t.Skip("who waits may poll where the file system is not known to be local")
	}
	next := newSemaphore(t, name, 2, WithPollInterval(time.Hour, time.Hour)) // so it cannot be by polling
	wantTry(t, s, 1, true)
	for range 3 {
		p := startAcquirer(t, name, 2)
		p.Say("acquire 2")
		waitFor(t, "a head", func() bool {
			s.lock()
			defer s.unlock()
			return s.gate.waiting.gateTaken(exclusive)
		})
		waitFor(t, "it has the other unit", func() bool { return len(kernelLocks(t, s.slotPath(0)))+len(kernelLocks(t, s.slotPath(1))) == 2 })
		w := acquiring(t.Context(), next, 1)
		pending(t, w)
		p.Kill()
		must(t, finish(t, w))
		next.Release(1)
	}
	s.Release(1)
}

// Who releases a unit without a descriptor to ring a bell with closes the slot file itself.
func TestReleaseWithoutDescriptorsWakesTheHead(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	restore := func() {}
	wakesTheHead(t, s, func() {
		restore()
		must(t, other.Acquire(t.Context(), 1))
		other.held[0].bell.ring()
		other.held[0].bell = nil
	}, func() {
		restore = noDescriptors(t)
		other.Release(1)
	})
	restore()
	wantTry(t, other, 1, true)
	other.Release(1)
}

// Where proc(5) is missing too.
func TestReleaseWithoutProcWakesTheHead(t *testing.T) {
	withoutProc(t)
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	wakesTheHead(t, s, func() { must(t, other.Acquire(t.Context(), 1)) }, func() { other.Release(1) })
}

// Of units that are released at once, the head may not watch the first, as its process has another file of that number.
func TestReleaseOfManyWakesTheHeadByAnyOfThem(t *testing.T) {
	asleep, soon := sleepLong(t)
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	must(t, s.Acquire(t.Context(), 1))
	must(t, other.Acquire(t.Context(), 1))
	must(t, os.Remove(s.slotPath(0)))
	must(t, other.Acquire(t.Context(), 1))
	if other.held[1].k != 0 {
		t.Fatal("another is released first")
	}
	w := acquiring(t.Context(), s, 1)
	time.Sleep(asleep)
	begin := time.Now()
	other.Release(2)
	must(t, finish(t, w))
	if d := time.Since(begin); d > soon {
		t.Errorf("woke after %v", d)
	}
	s.Release(2)
}

// Close changes nothing while somebody waits, also if units of others are.
func TestSemaphoreCloseWhileWaiting(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	wantTry(t, other, 1, true)
	q := newMutex(t, name+".queue.lock")
	q.Lock() // so that it does not get as far as to hold it
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 1)
	lineHas(t, s, 1)
	if s.Close() == nil {
		t.Fatal("closed while waited for")
	}
	q.Unlock()
	other.Release(1)
	must(t, finish(t, w))
	cancel()
	s.Release(1)
}

// A process may have more than the size only for others' files, never itself.
func TestUnitsOnSlotsThatAreGoneCount(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	for k := range int64(2) {
		must(t, os.Remove(s.slotPath(k)))
	}
	wantTry(t, s, 1, false)
	wantTry(t, s, 0, true)
	s.Release(2)
}

// Bells are closed with the semaphore, and after a release that rang one there is another.
func TestSlotsHaveAnotherBell(t *testing.T) {
	name := semName(t)
	var fds, rounds int
	for i := range 3 {
		s, err := NewFileSemaphore(name, 1)
		must(t, err)
		other, err := NewFileSemaphore(name, 1)
		must(t, err)
		var last *bell
		for others := 0; others < 2; {
			must(t, s.Acquire(t.Context(), 1))
			switch b := s.held[0].bell; {
			case b == nil && last != nil:
				t.Fatal("no other bell")
			case b != last:
				last = b
				others++
			}
			w := acquiring(t.Context(), other, 1)
			becomesHead(t, other)
			s.Release(1) // which rings, unless the head comes to look in this moment
			must(t, finish(t, w))
			other.Release(1)
			if rounds++; rounds > 1000 {
				t.Fatal("no bells")
			}
		}
		must(t, s.Close())
		must(t, other.Close())
		if i == 0 {
			fds = descriptors(t, "self")
		}
	}
	waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds })
}

// What was opened anew is not open twice, and no wait leaves a thread counted.
func TestSemaphoreReplacedFilesLeaveNoDescriptor(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	var fds int
	for i := range 15 {
		must(t, s.Acquire(t.Context(), 1))
		w := acquiring(t.Context(), other, 1)
		becomesHead(t, other)
		s.Release(1)
		must(t, finish(t, w))
		other.Release(1)
		for _, suffix := range []string{".00.lock", ".gate.lock"} {
			must(t, os.Remove(name+suffix))
		}
		time.Sleep(checkInterval)
		if n := descriptors(t, "self"); i == 2 {
			fds = n
		} else if i > 2 && n > fds+4 { // two bells and two alarms may be needed by chance
			t.Errorf("%d descriptors, were %d", n, fds)
		}
	}
	if os.Getenv("INTERLOCK_TEST") != "poll" {
		waitFor(t, "threads", func() bool { return waits.TryAcquire(maxWaits) })
		waits.Release(maxWaits)
	}
}

// A head that has given up, and whose queue file turns out to be gone when the file system answers.
func TestHeadThatGaveUpLeavesAStaleQueue(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s := newSemaphore(t, path, 1)
	other, err := NewFileSemaphore(path, 1, WithPollInterval(30*time.Millisecond, 30*time.Millisecond))
	must(t, err)
	must(t, s.Acquire(t.Context(), 1))
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, other, 1)
		becomesHead(t, other)
		stop(t, daemon)
		time.Sleep(60 * time.Millisecond) // its next look gets no answer
		removed := start(func() error { return os.Remove(path + ".queue.lock") })
		time.Sleep(10 * time.Millisecond)
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Error(err)
		}
		daemon.Signal(unix.SIGCONT)
		must(t, finish(t, removed))
		waitFor(t, "it leaves the line", other.line.empty)
	}
	s.Release(1)
	must(t, other.Close())
}

func TestReentrantSecondObjectLeavesNoDescriptor(t *testing.T) {
	path := lockPath(t)
	m := newRMutex(t, path)
	o := NewOwner()
	m.Lock(o)
	m.Unlock(o)
	fds := descriptors(t, "self")
	same := newRMutex(t, path)
	same.Lock(o)
	same.Unlock(o)
	if n := descriptors(t, "self"); n != fds {
		t.Errorf("%d descriptors, were %d", n, fds)
	}
}

// A trace changes nothing about when a wait ends.
func TestTracedAcquireDoesNotWaitForTheFileSystem(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	s, err := NewFileSemaphore(path, 2, WithTrace(&Trace{}))
	must(t, err)
	must(t, s.Acquire(t.Context(), 1))
	daemon.Ask("", "silent")
	time.Sleep(checkInterval)
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	if err := finish(t, acquiring(ctx, s, 1)); err != context.DeadlineExceeded {
		t.Error(err)
	}
	daemon.Kill()
	waitFor(t, "closed", func() bool { s.lock(); s.used = 0; s.held = nil; s.unlock(); return s.Close() == nil })
}
