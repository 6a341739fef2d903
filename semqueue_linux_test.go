package interlock

import (
	"context"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleepLong makes heads sleep so long that a wake-up that is missing is seen on the busiest machine, and returns
// after what time they do, and how soon they wake then.
func sleepLong(t *testing.T) (asleep, soon time.Duration) {
	was := longestPause
	longestPause = 10 * time.Second
	t.Cleanup(func() { longestPause = was })
	return time.Second / 2, time.Second / 10 // pauses double
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
			s.watcher = &watcher{inotify: -1, event: -1} // as if there were too many watches
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
		daemon.Signal(unix.SIGSTOP)
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
	if failed > 400 {
		t.Error(failed, "of 2000 failed")
	}
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
	var fds int
	for i := range 3 {
		s, err := NewFileSemaphore(name, 1)
		must(t, err)
		other, err := NewFileSemaphore(name, 1)
		must(t, err)
		for range 2 {
			must(t, s.Acquire(t.Context(), 1))
			w := acquiring(t.Context(), other, 1)
			becomesHead(t, other)
			s.Release(1)
			must(t, finish(t, w))
			other.Release(1)
		}
		wantTry(t, s, 1, true)
		if s.held[0].bell == nil {
			t.Error("no bell")
		}
		s.Release(1)
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
	for i := range 6 {
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
		} else if i > 2 && n > fds {
			t.Errorf("%d descriptors, were %d", n, fds)
		}
	}
	if os.Getenv("INTERLOCK_TEST") != "poll" {
		waitFor(t, "threads", func() bool { return waits.TryAcquire(maxThreads) })
		waits.Release(maxThreads)
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
		daemon.Signal(unix.SIGSTOP)
		time.Sleep(60 * time.Millisecond) // its next look gets no answer
		removed := start(func() error { return os.Remove(path + ".queue.lock") })
		time.Sleep(10 * time.Millisecond)
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Error(err)
		}
		daemon.Signal(unix.SIGCONT)
		must(t, finish(t, removed))
		for begin := time.Now(); !other.line.empty(); time.Sleep(time.Millisecond) {
			if time.Since(begin) > 3*time.Second {
				t.Fatalf("still in line: %d", other.line.n.Load())
			}
		}
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
