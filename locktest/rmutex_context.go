package locktest

import (
	"context"
	"time"
)

// waitersSurviveCancel cancels one of three waiting goroutines of an owner. The
// other two must get the lock.
func waitersSurviveCancel(t *rFixture) {
	holder, m, _ := bindOwners(t.openRemote(), t.open(), nil)
	for victim := range 3 {
		t.do(holder.lock)
		var waiters []<-chan error
		var cancels []context.CancelFunc
		for range 3 {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cancels = append(cancels, cancel)
			waiters = append(waiters, startContext(ctx, m.lockContext))
			time.Sleep(5 * time.Millisecond) // so that the waiters most likely arrive in order
		}
		t.blocks(waiters...)
		cancels[victim]()
		t.failsWith(waiters[victim], context.Canceled)
		waiters = append(waiters[:victim], waiters[victim+1:]...)
		t.blocks(waiters...)
		t.do(holder.unlock)
		t.succeeds(waiters...)
		wantDepth(t, m, 2)
		t.do(m.unlock)
		t.tryFails(holder.tryLock)
		t.do(m.unlock)
	}
	t.do(holder.lock, holder.unlock)
}

// nextOwnerLocks cancels all waiters of an owner. The next owner in line must
// get the lock.
func nextOwnerLocks(t *rFixture) {
	holder, m, other := bindOwners(t.openRemote(), t.open(), t.open())
	t.do(holder.lock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var waiters []<-chan error
	for range 4 {
		waiters = append(waiters, startContext(ctx, m.lockContext))
	}
	behind := startFunc(other.lock)
	t.blocks(append(waiters, behind)...)
	cancel()
	for _, w := range waiters {
		t.failsWith(w, context.Canceled)
	}
	t.blocks(behind)
	t.do(holder.unlock)
	t.succeeds(behind)
	wantDepth(t, m, 0)
	wantDepth(t, other, 1)
	t.do(other.unlock)
	t.do(m.lock, m.unlock) // a canceled owner can lock later
}

func rCanceledLeavesNothing(t *rFixture, holder, first, second RMutex) {
	m, a, b := bindOwners(holder, first, second)
	t.do(m.lock, m.lock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	canceled, other := startContext(ctx, a.lockContext), startFunc(b.lockAndUnlock)
	t.blocks(canceled, other)
	cancel()
	t.failsWith(canceled, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	t.failsWith(startContext(ctx, a.lockContext), context.DeadlineExceeded)
	wantDepth(t, a, 0)
	wantDepth(t, m, 2)
	t.blocks(other)
	t.do(m.unlock, m.unlock)
	t.succeeds(other)
	t.do(a.lockAndUnlock, m.lockAndUnlock)
}

func rCancelDuringUnlock(t *rFixture, holder, first, second RMutex) {
	m, a, _ := bindOwners(holder, first, nil)
	b := boundRMutex{second, a.o} // in one process, one owner has two waiters
	for i := range 40 {
		t.do(m.lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var waiters []<-chan error
		for _, w := range []boundRMutex{a, b} {
			waiters = append(waiters, startContext(ctx, func(ctx context.Context) error {
				if err := w.lockContext(ctx); err != nil {
					return err
				}
				w.unlock()
				return nil
			}))
		}
		time.Sleep(time.Duration(i%4) * 300 * time.Microsecond)
		go cancel()
		t.do(m.unlock)
		for _, w := range waiters {
			if err := t.result(w); err != nil && err != context.Canceled {
				t.Fatal(err)
			}
		}
		wantDepth(t, a, 0)
		wantDepth(t, b, 0)
	}
	t.do(m.lockAndUnlock)
}

func rDoneContext(t *rFixture, holder, first, second RMutex) {
	m, a, b := bindOwners(holder, first, second)
	fails := func(m boundRMutex, depth int) {
		t.Helper()
		for _, ctx := range doneContexts() {
			t.failsWith(startContext(ctx, m.lockContext), ctx.Err())
			t.failsWith(startContext(ctx, m.tryLockContext), ctx.Err())
			wantDepth(t, m, depth)
		}
	}
	fails(m, 0)
	t.do(m.lock)
	fails(m, 1) // the owner holds the lock, but its context is done
	fails(a, 0)
	t.do(m.unlock)
	t.trySucceeds(b.tryLock)
	t.do(b.unlock)
}
