//go:build !interlock_bsd

package interlock

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/closewatch"
	"github.com/interlock-go/interlock/internal/kernelwait"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// sleepLong makes the head pause for 20 µs, then for 50 ms, and then for 20 s,
// unless it is woken. So a test sees that a wake-up is missing even on a busy
// machine. After the time asleep, the head is in its long pause; if something
// wakes it, it wakes within the time soon.
func sleepLong(t *testing.T) {
	longest, growth := longestPause, pauseGrowth
	longestPause, pauseGrowth = 20*time.Second, 2500
	t.Cleanup(func() { longestPause, pauseGrowth = longest, growth })
}

const asleep, soon = time.Second / 10, 5 * time.Second

// finishSoon calls event, and fails the test unless that soon ends the call
// behind w. It returns the result of the call.
func finishSoon(t *testing.T, w <-chan error, event func()) error {
	t.Helper()
	begin := time.Now()
	event()
	err := finish(t, w)
	if d := time.Since(begin); d > soon {
		t.Errorf("the head woke after %v", d)
	}
	return err
}

// neverPoll is a poll interval with which polling helps no test: a lost wake-up
// makes the test fail.
var neverPoll = pollInterval{20 * time.Second, 20 * time.Second}

// wakesHead fails unless event wakes the head. In each round, hold acquires the
// only unit of s for another holder, a goroutine waits for it, and event makes
// the unit free.
func wakesHead(t *testing.T, s *FileSemaphore, hold, event func()) {
	t.Helper()
	needKernelWait(t)
	if !isLocal(s) {
		t.Skip("the head polls on a remote file system")
	}
	s.opts.poll = neverPoll
	sleepLong(t)
	for range 3 {
		hold()
		w := acquiring(t.Context(), s, 1)
		time.Sleep(asleep)
		must(t, finishSoon(t, w, event))
		s.Release(1)
	}
}

// The head sleeps in different ways, depending on the file system and on
// whether other processes hold units.
func TestReleaseAndCancelWakeHeadOfSameProcess(t *testing.T) {
	sleepLong(t)
	rounds := 1
	if longtest.Enabled() {
		rounds = 5
	}
	for _, local := range []bool{true, false} {
		for _, alone := range []bool{true, false} {
			t.Run(fmt.Sprintf("local=%t,alone=%t", local, alone), func(t *testing.T) {
				name := semName(t)
				if !local {
					_, name = mountFUSE(t, "works")
				}
				s := newSemaphore(t, name, 2, WithPollInterval(longestPause, longestPause))
				other := newSemaphore(t, name, 2)
				must(t, s.Acquire(t.Context(), 1))
				second := other
				if alone {
					second = s
				}
				must(t, second.Acquire(t.Context(), 1))
				for range rounds {
					w := acquiring(t.Context(), s, 1)
					time.Sleep(asleep)
					must(t, finishSoon(t, w, func() { s.Release(1) }))

					ctx, cancel := context.WithCancel(t.Context())
					w = acquiring(ctx, s, 1)
					time.Sleep(asleep)
					if err := finishSoon(t, w, cancel); err != context.Canceled {
						t.Errorf("Acquire returned %v", err)
					}
					waitFor(t, "the canceled head leaves", func() bool { return queuedFor(s) == 0 })
				}
				s.Release(1)
				second.Release(1)
			})
		}
	}
}

// A newcomer does not overtake a goroutine of its process, even if a slot is
// free.
func TestNewcomerDoesNotOvertakeLeader(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	if !isLocal(s) {
		t.Skip("acquireNow is for local file systems")
	}
	wantTry(t, s, 1, true)
	s.Release(1)
	w, err := s.enter(1, false) // it leads
	must(t, err)
	if s.acquireNow() {
		t.Error("a newcomer overtook the leader")
	}
	s.finish(t.Context(), w, ErrLocked)
	if !s.acquireNow() {
		t.Error("no unit after the leader has left")
	}
	s.Release(1)
}

// newHead returns a waiter that is the head, and that no goroutine runs.
func newHead(t *testing.T, s *FileSemaphore) *waiter {
	t.Helper()
	w, err := s.enter(1, false)
	must(t, err)
	s.queue.await(&s.mu, nil, w) // or it would be woken by this
	must(t, s.turn.wait(t.Context(), exclusive))
	s.hasTurn = true
	return s.becomeHead()
}

// A release may wake the head after it has looked at the slots, and before it
// sleeps.
func TestWakeUpBeforeSleepIsNotLost(t *testing.T) {
	ctx := t.Context()
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	must(t, other.Acquire(ctx, 2))
	head := newHead(t, s)
	if _, err := s.headScan(ctx, false); err != ErrLocked {
		t.Errorf("headScan returned %v", err)
	}
	s.wakeHead()
	begin := time.Now()
	s.sleep(ctx, head, patience)
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("the head slept for %v", d)
	}
	s.endHead()
	s.finish(ctx, head, ErrLocked)
	other.Release(2)
}

// A file that is closed before the head scans is looked at again soon, as one
// that is closed while the head sleeps.
func TestCloseBeforeScanShortensSleep(t *testing.T) {
	ctx := t.Context()
	s := newSemaphore(t, semName(t), 1)
	if !isLocal(s) {
		t.Skip("the head does not watch on a remote file system")
	}
	f := Must(os.OpenFile(s.slotPath(0), os.O_RDWR|os.O_CREATE, 0o600))
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	head := newHead(t, s)
	scan := func() {
		if _, err := s.headScan(ctx, false); err != ErrLocked {
			t.Errorf("headScan returned %v", err)
		}
	}
	scan()
	must(t, Must(os.Open(f.Name())).Close())
	scan()
	begin := time.Now()
	s.sleep(ctx, head, patience)
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("the head slept for %v", d)
	}
	s.endHead()
	s.finish(ctx, head, ErrLocked)
}

// The next waiter of a process becomes the head as soon as the head has its
// units. Each of them gets the wake-up that is meant for it.
func TestReleasesWakeOneHeadAfterAnother(t *testing.T) {
	sleepLong(t)
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	s.opts.poll = neverPoll
	must(t, other.Acquire(t.Context(), 1)) // so that there is a slot to watch
	defer other.Release(1)
	must(t, s.Acquire(t.Context(), 1))
	for range 4 {
		first := acquiring(t.Context(), s, 1)
		queueHas(t, s, 1)
		second := acquiring(t.Context(), s, 1)
		time.Sleep(asleep)
		for _, w := range []<-chan error{first, second} {
			must(t, finishSoon(t, w, func() { s.Release(1) }))
		}
	}
	s.Release(1)
}

// The head hands its turn to the next waiter of its process, but not if another
// process waits for it.
func TestHeadLeavesTurnToAnotherProcess(t *testing.T) {
	needKernelWait(t) // waiters that poll may overtake each other
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	must(t, s.Acquire(t.Context(), 1))
	first := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	second := acquiring(t.Context(), other, 1)
	waitFor(t, "another waits for the turn", func() bool { return queuedFor(other) == 1 && gateOfTurnTaken(t, s) })
	third := acquiring(t.Context(), s, 1)
	queueHas(t, s, 2)
	s.Release(1)
	must(t, finish(t, first))
	becomesHead(t, other)
	s.Release(1)
	must(t, finish(t, second))
	pending(t, third)
	other.Release(1)
	must(t, finish(t, third))
	s.Release(1)
}

// gateOfTurnTaken reports whether a process waits for the turn.
func gateOfTurnTaken(t *testing.T, s *FileSemaphore) bool {
	t.Helper()
	f := lockFileAt(t, s.abs+".queue.lock")
	defer f.close()
	return taken(f, exclusive)
}

// A head that cannot watch the slots polls at the interval of WithPollInterval.
func TestHeadThatCannotWatchPolls(t *testing.T) {
	for _, why := range []string{"remote", "no inotify", "too many waits"} {
		t.Run(why, func(t *testing.T) {
			sleepLong(t)
			name := semName(t)
			if why == "remote" {
				_, name = mountFUSE(t, "works")
			}
			s := newSemaphore(t, name, 1, WithPollInterval(time.Millisecond, time.Millisecond))
			other := newSemaphore(t, name, 1)
			switch why {
			case "no inotify":
				s.watcher = Must(closewatch.New())
				breakWatcher(t, s.watcher)
			case "too many waits":
				t.Cleanup(kernelwait.SetMaxWaits(0))
			}
			must(t, other.Acquire(t.Context(), 1))
			w := acquiring(t.Context(), s, 1)
			time.Sleep(asleep)
			must(t, finishSoon(t, w, func() { other.Release(1) }))
			s.Release(1)
		})
	}
}

// The head looks at the other slots even if the file of one was replaced and it
// cannot watch the new file.
func TestHeadPassesOverSlotItCannotWatch(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	if !isLocal(s) {
		t.Skip("the head does not watch on a remote file system")
	}
	s.watcher = Must(closewatch.New())
	must(t, other.Acquire(t.Context(), 2))
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	time.Sleep(moment) // it watches both slots
	breakWatcher(t, s.watcher)
	f := Must(os.Create(name + ".new"))
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	must(t, os.Rename(f.Name(), s.slotPath(0)))
	pending(t, w)
	other.Release(2)
	must(t, finish(t, w)) // it has slot 1
	s.Release(1)
}

// breakWatcher makes all calls of the watcher fail.
func breakWatcher(t *testing.T, w *closewatch.Watcher) {
	t.Helper()
	dead := Must(unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0))
	defer unix.Close(dead)
	fd := int(reflect.ValueOf(w).Elem().FieldByName("inotify").Int())
	must(t, unix.Dup3(dead, fd, unix.O_CLOEXEC))
}

// A file may be closed a little before its lock is free, for example when a
// process dies. The head looks again soon.
func TestHeadLooksAgainAfterClose(t *testing.T) {
	sleepLong(t)
	s := newSemaphore(t, semName(t), 1)
	for range 3 {
		f := Must(os.OpenFile(s.slotPath(0), os.O_RDWR|os.O_CREATE, 0o600))
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		w := acquiring(t.Context(), s, 1)
		time.Sleep(asleep)
		closed := time.Now()
		must(t, Must(os.Open(f.Name())).Close())
		time.Sleep(2 * time.Millisecond)
		begin := time.Now()
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
		// On a busy machine, the head may be in its long pause again.
		late := time.Since(closed) > asleep/4
		if late {
			must(t, Must(os.Open(f.Name())).Close())
		}
		must(t, finish(t, w))
		if d := time.Since(begin); d > soon && !late {
			t.Errorf("the head noticed after %v", d)
		}
		s.Release(1)
		f.Close()
	}
}

func TestKilledHolderWakesHead(t *testing.T) {
	name := semName(t)
	var p *proc.Process
	wakesHead(t, newSemaphore(t, name, 1), func() {
		p = startAcquirer(t, name, 1)
		p.Ask("acquire 1", "acquire 1 ok")
	}, func() { p.Kill() })
}

// When the head is killed, the next process becomes the head, and finds the
// units that the old one had collected.
func TestKilledHeadLetsNextIn(t *testing.T) {
	needKernelWait(t)
	sleepLong(t)
	name := semName(t)
	s := newSemaphore(t, name, 2)
	if !isLocal(s) {
		t.Skip("waiters poll on a remote file system")
	}
	next := newSemaphore(t, name, 2, WithPollInterval(neverPoll.min, neverPoll.max))
	wantTry(t, s, 1, true)
	for range 3 {
		p := startAcquirer(t, name, 2)
		p.Say("acquire 2")
		waitFor(t, "the head", func() bool { return marked(s) })
		waitFor(t, "the head has the other unit", func() bool {
			slots, _ := lockedFiles(t, s)
			return slots == 2
		})
		w := acquiring(t.Context(), next, 1)
		pending(t, w)
		p.Kill()
		must(t, finish(t, w))
		next.Release(1)
	}
	s.Release(1)
}

// A head whose turn is at another file by now gives up the units that it has,
// and waits for its turn there.
func TestHeadGivesWayIfTurnFileReplaced(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 4), newSemaphore(t, name, 4)
	wantTry(t, s, 2, true)
	w := acquiring(t.Context(), s, 4)
	becomesHead(t, s)
	// Locked before it is there, or the head could lock it first.
	turn := Must(os.Create(name + ".new"))
	defer turn.Close()
	must(t, unix.Flock(int(turn.Fd()), unix.LOCK_EX))
	must(t, os.Rename(turn.Name(), name+".queue.lock"))
	waitFor(t, "the head gives up its units", func() bool { return other.TryAcquire(2) })
	pending(t, w)
	other.Release(2)
	must(t, unix.Flock(int(turn.Fd()), unix.LOCK_UN))
	s.Release(2)
	must(t, finish(t, w))
	s.Release(4)
}

// A head may have collected a slot whose file is removed before the head has
// all its units. That slot does not count: another process can acquire the unit
// at the new file. It makes no difference whether the head locked the slot, or
// a release in its own process handed it on.
func TestHeadDropsCollectedSlotThatWasRemoved(t *testing.T) {
	for own := range int64(3) {
		t.Run(fmt.Sprintf("own=%d", own), func(t *testing.T) {
			name := semName(t)
			s, other, third := newSemaphore(t, name, 3), newSemaphore(t, name, 3), newSemaphore(t, name, 3)
			must(t, s.Acquire(t.Context(), own))
			must(t, other.Acquire(t.Context(), 2-own))
			w := acquiring(t.Context(), s, 3)
			becomesHead(t, s)
			waitFor(t, "one slot", func() bool { return collected(s) == 1 })
			if own > 0 {
				s.Release(1)
				waitFor(t, "two slots", func() bool { return collected(s) == 2 })
			}
			s.mu.Lock()
			first := s.collected[0].file.path
			s.mu.Unlock()
			must(t, os.Remove(first))
			if own > 1 {
				s.Release(1)
			}
			other.Release(2 - own)
			must(t, finish(t, w))
			wantTry(t, third, 1, false)
			s.Release(3)
			wantTry(t, third, 3, true)
			third.Release(3)
		})
	}
}

// A canceled head releases the slot that it collected, and callers in its
// process keep theirs. The head's slot file is gone, so that others can see
// whether a caller's slot is free.
func TestCanceledHeadReleasesOnlyItsOwnSlots(t *testing.T) {
	name := semName(t)
	s, other, third := newSemaphore(t, name, 3), newSemaphore(t, name, 3), newSemaphore(t, name, 3)
	wantTry(t, s, 2, true)
	wantTry(t, other, 1, true)
	ctx, cancel := context.WithCancel(t.Context())
	w := acquiring(ctx, s, 2)
	becomesHead(t, s)
	s.Release(1)
	if n := collected(s); n != 1 {
		t.Errorf("the head has %d slots after a release, want 1", n)
	}
	s.mu.Lock()
	gone := s.collected[0].file.path
	s.mu.Unlock()
	must(t, os.Remove(gone))
	cancel()
	if err := finish(t, w); err != context.Canceled {
		t.Errorf("Acquire returned %v", err)
	}
	time.Sleep(checkInterval)
	wantTry(t, third, 2, false)
	wantTry(t, third, 1, true) // by the new file
	third.Release(1)
	other.Release(1)
	s.Release(1)
}

// A trapContext is done after a number of calls of its method Err. At the last
// of them it springs a trap.
type trapContext struct {
	context.Context
	calls atomic.Int64 // that are left
	trap  func()
	done  chan struct{}
}

func (c *trapContext) Done() <-chan struct{} { return c.done }

func (c *trapContext) Err() error {
	switch left := c.calls.Add(-1); {
	case left > 0:
		return nil
	case left == 0:
		close(c.done)
		c.trap()
		return nil
	}
	return context.Canceled
}

// A call whose context is done before there is a unit fails, wherever the call
// is at that moment. It may have looked at the context just before.
func TestAcquireFailsIfCanceledBeforeRelease(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	for calls := range int64(40) {
		must(t, other.Acquire(t.Context(), 1))
		ctx := &trapContext{Context: t.Context(), done: make(chan struct{}), trap: func() { other.Release(1) }}
		ctx.calls.Store(calls + 1)
		if err := s.Acquire(ctx, 1); err != context.Canceled {
			t.Fatalf("canceled after %d looks at the context: Acquire returned %v", calls+1, err)
		}
		must(t, becomesQuiet(s, 0))
	}
}

// On a local file system, everything is undone when the call returns, even on a
// busy machine.
func TestCanceledAcquireIsUndoneWhenItReturns(t *testing.T) {
	t.Cleanup(offload.SetGrace(0))
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	if !isLocal(s) {
		t.Skip("a remote file system may not answer")
	}
	for range 50 {
		must(t, other.Acquire(t.Context(), 1))
		ctx, cancel := context.WithCancel(t.Context())
		w := acquiring(ctx, s, 1)
		becomesHead(t, s)
		cancel()
		if err := finish(t, w); err != context.Canceled {
			t.Errorf("Acquire returned %v", err)
		}
		if err := quiet(s, 0); err != nil {
			t.Fatal(err)
		}
		other.Release(1)
		wantTry(t, s, 1, true)
		s.Release(1)
	}
}

// A head that can only get units of its own process need not poll.
func TestHeadSleepsIfOwnProcessHasAllUnits(t *testing.T) {
	const interval = 100 * time.Microsecond
	s := newSemaphore(t, semName(t), 1, WithPollInterval(interval, interval))
	wantTry(t, s, 1, true)
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	time.Sleep(longestPause)
	before := switches(t, "self")
	time.Sleep(5 * longestPause)
	if n := switches(t, "self") - before; n > 500 { // polling causes thousands
		t.Errorf("%d context switches while the head waited %v", n, 5*longestPause)
	}
	s.Release(1)
	must(t, finish(t, w))
	s.Release(1)
}

// A head that the kernel does not let wait polls, and does not spin.
func TestHeadPollsIfItMayNotWait(t *testing.T) {
	needKernelWait(t)
	name := semName(t)
	a, b := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	must(t, a.Acquire(t.Context(), 1))
	w := acquiring(t.Context(), b, 1)
	becomesHead(t, b)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 1 // ppoll(2) refuses to wait for two files
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	time.Sleep(2 * longestPause)
	used := func() time.Duration {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	time.Sleep(500 * time.Millisecond)
	cpu := used() - before
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if cpu > 150*time.Millisecond {
		t.Errorf("it took %v of CPU time in 500 ms", cpu)
	}
	a.Release(1)
	must(t, finish(t, w))
	b.Release(1)
}
