package locktest

import (
	"context"
	"runtime"
	"sync"
	"time"
)

func acquireZeroWaits(t *semFixture, holder, first, second Semaphore) {
	acquire(t, holder, 2)
	acquire(t, second, 0) // no goroutine waits
	large := startAcquire(context.Background(), first, 2)
	untilTryFails(t, second, 0)
	zero := startAcquire(context.Background(), second, 0)
	t.blocks(large, zero)
	release(t, holder, 2)
	t.succeeds(large, zero)
	release(t, first, 2)
}

func semTryDoesNotOvertake(t *semFixture, holder, first, second Semaphore) {
	for range 3 {
		acquire(t, holder, 2)
		large := startAcquire(context.Background(), first, 3)
		untilTryFails(t, second, 1)
		untilTryFails(t, holder, 1)
		untilTryFails(t, holder, 0)
		t.blocks(large)
		// Every released unit goes to the waiter.
		for range 2 {
			release(t, holder, 1)
			wantTry(t, holder, 1, false)
			wantTry(t, second, 1, false)
		}
		t.succeeds(large)
		release(t, first, 3)
	}
}

func smallerDoesNotOvertake(t *semFixture, holder, first, second Semaphore) {
	acquire(t, holder, 2)
	large := startAcquire(context.Background(), first, 2)
	untilTryFails(t, second, 1)
	untilTryFails(t, holder, 1)
	var small []<-chan error
	for _, s := range []Semaphore{holder, first, second} {
		small = append(small, startAcquire(context.Background(), s, 1))
	}
	t.blocks(append(small, large)...)
	release(t, holder, 1)
	t.succeeds(large)
	release(t, first, 2)
	release(t, holder, 1)
	t.succeeds(small...)
	for _, s := range []Semaphore{holder, first, second} {
		release(t, s, 1)
	}
}

func semServedInOrder(t *semFixture) {
	s, remote := t.open(), t.openRemote()
	for _, holder := range []Semaphore{s, remote} {
		servedInOrder(t, func() { acquire(t, holder, 2) }, func() { holder.Release(2) }, func(note func()) {
			if err := s.Acquire(context.Background(), 2); err != nil {
				panic(err)
			}
			note()
			s.Release(2)
		})
	}
}

// keepAcquiring acquires and releases one unit on each goroutine until ctx is
// done.
func keepAcquiring(ctx context.Context, s Semaphore, goroutines int) {
	var wg sync.WaitGroup
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for s.Acquire(ctx, 1) == nil {
				time.Sleep(time.Millisecond)
				s.Release(1)
			}
		}()
	}
	wg.Wait()
}

func largeNotStarved(t *semFixture)   { acquiresRepeatedly(t, 2, 4) }
func processNotStarved(t *semFixture) { acquiresRepeatedly(t, 1, 8) }

// acquiresRepeatedly acquires all units many times, while goroutines of other
// processes acquire one unit each.
func acquiresRepeatedly(t *semFixture, processes, goroutines int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var busy []<-chan error
	for range processes {
		p := t.process()
		busy = append(busy, startContext(ctx, func(ctx context.Context) error { return p.ask(ctx, "keepAcquiring", goroutines) }))
	}
	s := t.open()
	time.Sleep(watchTime)
	for range 20 {
		acquire(t, s, t.size)
		release(t, s, t.size)
	}
	cancel()
	t.succeeds(busy...)
}

// acquireAllRepeatedly acquires and releases all units n times.
func acquireAllRepeatedly(s Semaphore, n int) error {
	for range n {
		if err := s.Acquire(context.Background(), s.Size()); err != nil {
			return err
		}
		runtime.Gosched()
		s.Release(s.Size())
	}
	return nil
}

func noDeadlock(t *semFixture) {
	const n = 200
	var calls []<-chan error
	for range 2 {
		s, p := t.open(), t.process()
		calls = append(calls,
			start(func() error { return acquireAllRepeatedly(s, n) }),
			start(func() error { return p.ask(context.Background(), "acquireAllRepeatedly", n) }))
	}
	t.succeeds(calls...)
}
