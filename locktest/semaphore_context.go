package locktest

import (
	"context"
	"time"
)

func semDoneContext(t *semFixture, a, b, c Semaphore) {
	fails := func(s Semaphore) {
		t.Helper()
		for _, ctx := range doneContexts() {
			for _, n := range []int64{0, 1, 3, 4} {
				t.failsWith(startAcquire(ctx, s, n), ctx.Err())
			}
		}
	}
	fails(a)
	fails(b)
	wantTry(t, b, 3, true)
	fails(a)
	fails(b)
	release(t, b, 3)
	wantTry(t, c, 3, true)
	release(t, c, 3)
}

func canceledFreesUnits(t *semFixture, holder, first, second Semaphore) {
	acquire(t, holder, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	large := startAcquire(ctx, first, 3) // the first waiter may already hold two units
	untilTryFails(t, second, 1)
	small := startAcquire(context.Background(), second, 2)
	t.blocks(large, small)
	cancel()
	t.failsWith(large, context.Canceled)
	t.succeeds(small)
	release(t, second, 2)
	release(t, holder, 1)
	acquire(t, holder, 3)
	release(t, holder, 3)
}

// canceledLeavesLine cancels one of three waiters. The others must get units.
func canceledLeavesLine(t *semFixture, holder, first, second Semaphore) {
	for victim := range 3 {
		acquire(t, holder, 2)
		var waiters []<-chan error
		var cancels []context.CancelFunc
		for _, s := range []Semaphore{first, first, second} {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cancels = append(cancels, cancel)
			waiters = append(waiters, startAcquire(ctx, s, 1))
			time.Sleep(5 * time.Millisecond) // so that the waiters most likely arrive in order
		}
		t.blocks(waiters...)
		cancels[victim]()
		t.failsWith(waiters[victim], context.Canceled)
		release(t, holder, 2)
		for i, s := range []Semaphore{first, first, second} {
			if i != victim {
				t.succeeds(waiters[i])
				release(t, s, 1)
			}
		}
	}
	acquire(t, second, 2)
	release(t, second, 2)
}

func semExpired(t *semFixture, holder, first, second Semaphore) {
	acquire(t, holder, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	large, all := startAcquire(ctx, first, 3), startAcquire(ctx, second, 3)
	t.failsWith(large, context.DeadlineExceeded)
	t.failsWith(all, context.DeadlineExceeded)
	acquire(t, second, 2)
	release(t, second, 2)
	release(t, holder, 1)
	acquire(t, first, 3)
	release(t, first, 3)
}

func cancelDuringRelease(t *semFixture, holder, first, second Semaphore) {
	for i := range 80 {
		acquire(t, holder, 2)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		large, behind := startAcquire(ctx, first, 3), acquireAndRelease(second, 1)
		time.Sleep(time.Duration(i%4) * 300 * time.Microsecond)
		go cancel()
		release(t, holder, 2)
		switch err := t.result(large); err {
		case nil:
			release(t, first, 3)
		case context.Canceled:
		default:
			t.Fatal(err)
		}
		t.succeeds(behind)
		acquire(t, first, 3) // no unit was lost
		release(t, first, 3)
	}
}
