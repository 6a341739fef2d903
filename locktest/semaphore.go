package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

type semFixture = fixture[Semaphore]

func testSemaphore(t *testing.T, open func(name string, size int64) (Semaphore, error)) {
	s := func(size int64) *semFixture {
		return &semFixture{
			T:       t,
			kind:    "Semaphore",
			size:    size,
			newLock: open,
			remote:  func(p *process) Semaphore { return remoteSemaphore{p} },
		}
	}
	t.Run("LeavesNoGoroutines", func(t *testing.T) { semLeavesNoGoroutines(s(2).sub(t)) }) // not parallel: it counts goroutines
	s(3).runLayouts("AcquireIsAllOrNothing", allOrNone)
	s(3).run("UnitsAreInterchangeable", unitsAreInterchangeable)
	s(1).run("ReleaseHappensBeforeAcquire", releaseHappensBefore)
	s(3).run("NeverExceedsSize", neverExceedsSize)
	s(2).runLayouts("ReleaseWakesWaiter", releaseWakesWaiter)
	s(2).runLayouts("OversizedAcquireBlocksOnlyItself", oversizedAcquire)
	s(0).runLayouts("SizeZero", sizeZero)
	s(3).runLayouts("AcquireZeroWaitsInLine", acquireZeroWaits)
	s(3).runLayouts("DoneContextFails", semDoneContext)
	s(3).runLayouts("TryDoesNotOvertakeWaiter", semTryDoesNotOvertake)
	s(3).runLayouts("SmallerAcquireDoesNotOvertake", smallerDoesNotOvertake)
	s(2).run("WaitersOfOneObjectServedInOrder", semServedInOrder)
	s(3).run("LargeAcquireNotStarvedBySmallOnes", largeNotStarved)
	s(1).run("WaiterNotStarvedByBusyProcess", processNotStarved)
	s(2).run("AcquiresOfAllUnitsDoNotDeadlock", noDeadlock)
	s(3).runLayouts("CanceledWaitFreesItsUnits", canceledFreesUnits)
	s(2).runLayouts("CanceledWaiterLeavesLine", canceledLeavesLine)
	s(3).runLayouts("ExpiredWaitLeavesNothing", semExpired)
	s(3).runLayouts("CancelDuringReleaseLosesNothing", cancelDuringRelease)
	s(5).run("KilledHolderFreesUnits", killedFreesUnits)
	s(3).run("KilledFirstWaiterLeavesNothing", killedFirstWaiter)
	s(3).run("KilledAnytimeFreesUnits", semKills)
	s(2).run("StoppedHolderKeepsUnits", semStopped)
	s(4).run("SizeIsSharedByAllObjects", sizeIsShared)
	s(4).run("UnusedSemaphoreAcceptsNewSize", unusedAcceptsNewSize)
	s(3).run("DifferentNamesAreDifferentSemaphores", semNames)
	s(2).runLayouts("MisusePanicsAndChangesNothing", semMisuse)
	s(2).run("Close", semClose)
}

// A remoteSemaphore is a Semaphore in another process.
type remoteSemaphore struct{ p *process }

func (s remoteSemaphore) Acquire(ctx context.Context, n int64) error {
	return s.p.ask(ctx, "Acquire", n)
}
func (s remoteSemaphore) TryAcquire(n int64) bool { return s.p.must("TryAcquire", n) == "true" }
func (s remoteSemaphore) Release(n int64)         { s.p.must("Release", n) }
func (s remoteSemaphore) Close() error            { return s.p.ask(context.Background(), "Close") }
func (s remoteSemaphore) Size() int64 {
	size, err := callValue[int64](context.Background(), s.p, "Size")
	if err != nil {
		panic(err)
	}
	return size
}

// startAcquire starts a call of Acquire.
func startAcquire(ctx context.Context, s Semaphore, n int64) <-chan error {
	return start(func() error { return s.Acquire(ctx, n) })
}

// acquireAndRelease starts a call that acquires and releases n units.
func acquireAndRelease(s Semaphore, n int64) <-chan error {
	return start(func() error {
		err := s.Acquire(context.Background(), n)
		if err == nil {
			s.Release(n)
		}
		return err
	})
}

// acquire acquires n units and waits until they are free.
func acquire(t *semFixture, s Semaphore, n int64) {
	t.Helper()
	t.succeeds(startAcquire(context.Background(), s, n))
}

// release releases n units.
func release(t *semFixture, s Semaphore, n int64) {
	t.Helper()
	t.do(func() { s.Release(n) })
}

// wantTry fails unless TryAcquire(n) returns want.
func wantTry(t *semFixture, s Semaphore, n int64, want bool) {
	t.Helper()
	if t.try(func() bool { return s.TryAcquire(n) }) != want {
		t.Fatalf("TryAcquire(%d) = %t, want %t", n, !want, want)
	}
}

// wantSize fails unless the size of s is want.
func wantSize(t *semFixture, s Semaphore, want int64) {
	t.Helper()
	var size int64
	t.do(func() { size = s.Size() })
	if size != want {
		t.Errorf("Size() = %d, want %d", size, want)
	}
}

// untilTryFails waits until waiters keep s from acquiring n free units.
func untilTryFails(t *semFixture, s Semaphore, n int64) {
	t.Helper()
	t.untilRefused(func() bool { return s.TryAcquire(n) }, func() { s.Release(n) })
}

func semLeavesNoGoroutines(t *semFixture) {
	holder, s := t.open(), t.open()
	leavesNoGoroutines(t, func() {
		acquire(t, holder, 2)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var canceled, others []<-chan error
		for i := range 10 {
			canceled = append(canceled, startAcquire(ctx, s, int64(1+i%3)))
			others = append(others, acquireAndRelease(s, int64(i%3)))
		}
		time.Sleep(10 * time.Millisecond)
		cancel()
		for _, c := range canceled {
			t.failsWith(c, context.Canceled)
		}
		release(t, holder, 2)
		t.succeeds(others...)
	})
}

func allOrNone(t *semFixture, a, b, c Semaphore) {
	for _, s := range []Semaphore{a, b, c} {
		wantSize(t, s, 3)
	}
	wantTry(t, b, 4, false)
	wantTry(t, a, 3, true)
	wantTry(t, b, 1, false)
	wantTry(t, c, 0, true)
	release(t, c, 0)
	release(t, a, 1)
	wantTry(t, b, 2, false)
	wantTry(t, c, 1, true) // the failed call for two units kept none
	wantTry(t, b, 1, false)
	release(t, a, 2)
	release(t, c, 1)
	acquire(t, b, 2)
	wantTry(t, a, 2, false)
	acquire(t, a, 1)
	wantTry(t, c, 1, false)
	release(t, b, 2)
	release(t, a, 1)
	wantTry(t, c, 3, true)
	release(t, c, 3)
}

func unitsAreInterchangeable(t *semFixture) {
	s, other := t.open(), t.open()
	acquire(t, s, 2) // each call on a new goroutine
	acquire(t, s, 1)
	release(t, s, 1)
	wantTry(t, other, 1, true)
	wantTry(t, other, 1, false)
	release(t, s, 2)
	wantTry(t, other, 2, true)
	release(t, other, 3)
}

// releaseHappensBefore uses a plain variable, so that the race detector sees
// whether each release happens before the next acquisition.
func releaseHappensBefore(t *semFixture) {
	objects := []Semaphore{t.open(), t.open()}
	n := 0
	t.succeeds(start(func() error {
		return repeatCalls(4, 50, func(i int) error {
			s := objects[i%len(objects)]
			if err := s.Acquire(context.Background(), 1); err != nil {
				return err
			}
			before := n
			time.Sleep(10 * time.Microsecond)
			n = before + 1
			s.Release(1)
			return nil
		})
	}))
	if n != 200 {
		t.Errorf("%d additions, want 200: updates were lost", n)
	}
}

// acquireRandomly acquires n times on each of 6 goroutines, every time a random
// number of units. Half of the contexts end soon. It records what it acquires.
func acquireRandomly(s Semaphore, l unitLog, n int) error {
	size := s.Size()
	return repeatCalls(6, n, func(int) error {
		n := rand.Int64N(size + 1)
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		if rand.N(2) == 0 {
			ctx, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond))
		}
		defer cancel()
		if rand.N(8) == 0 {
			if !s.TryAcquire(n) {
				return nil
			}
		} else if err := s.Acquire(ctx, n); err != nil {
			return unlessRefused(ctx, false, err)
		}
		err := l.record(n)
		if rand.N(2) == 0 {
			time.Sleep(rand.N(300 * time.Microsecond))
		}
		err = errors.Join(err, l.record(-n))
		s.Release(n)
		return err
	})
}

func neverExceedsSize(t *semFixture) {
	l := newUnitLog(t)
	const n = 80
	var calls []<-chan error
	var objects []Semaphore
	for range 2 {
		s, p := t.open(), t.process()
		objects = append(objects, s, t.remote(p))
		calls = append(calls,
			start(func() error { return acquireRandomly(s, l, n) }),
			start(func() error { return p.ask(context.Background(), "acquireRandomly", l, n) }))
	}
	t.succeeds(calls...)
	if peak, now, err := l.peak(); err != nil || peak > t.size || now != 0 {
		t.Errorf("of %d units, at most %d were in use at one time, and %d at the end (error: %v)", t.size, peak, now, err)
	}
	for _, s := range objects { // no unit was lost
		acquire(t, s, 3)
		release(t, s, 3)
	}
}

func releaseWakesWaiter(t *semFixture, holder, first, second Semaphore) {
	acquire(t, holder, 1)
	acquire(t, holder, 1)
	waiters := []<-chan error{startAcquire(context.Background(), first, 1), startAcquire(context.Background(), second, 1)}
	t.blocks(waiters...)
	release(t, holder, 2)
	t.succeeds(waiters...)
	wantTry(t, holder, 1, false)
	both := startAcquire(context.Background(), holder, 2)
	t.blocks(both)
	release(t, first, 1)
	t.blocks(both)
	release(t, second, 1)
	t.succeeds(both)
	release(t, holder, 2)
}
