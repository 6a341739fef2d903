package locktest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

func rwDoneContextFree(t *rwFixture, holder, first, second RWMutex) {
	for _, m := range []RWMutex{holder, first, second} {
		for _, ctx := range doneContexts() {
			for name, call := range rwCalls {
				if err := t.result(startContext(ctx, func(ctx context.Context) error { return call(m, ctx) })); err != ctx.Err() {
					t.Errorf("%s: error %v, want %v itself", name, err, ctx.Err())
				}
			}
		}
		t.trySucceeds(m.TryLock)
		t.do(m.Unlock)
	}
}

func rwDoneContextHeld(t *rwFixture, holder, first, second RWMutex) {
	t.do(holder.Lock)
	for _, m := range []RWMutex{holder, first} {
		for _, ctx := range doneContexts() {
			for name, call := range rwCalls {
				if err := t.result(startContext(ctx, func(ctx context.Context) error { return call(m, ctx) })); err != ctx.Err() {
					t.Errorf("%s: error %v, want %v itself", name, err, ctx.Err())
				}
			}
		}
	}
	t.tryFails(second.TryRLock)
	t.do(holder.Unlock)
	t.trySucceeds(first.TryLock)
	t.do(first.Unlock)
}

// canceledLeavesNothing returns a test with three waiters. The first waits as a
// writer if write1 is set, the others if write2 is set. The second waiter is
// canceled, then the first; the third must get the lock.
func canceledLeavesNothing(write1, write2 bool) func(t *rwFixture, holder, first, second RWMutex) {
	wait := func(m RWMutex, write bool, ctx context.Context) <-chan error {
		defer time.Sleep(5 * time.Millisecond) // so that the waiters most likely arrive in order
		if write {
			return startContext(ctx, m.LockContext)
		}
		return startContext(ctx, m.RLockContext)
	}
	return func(t *rwFixture, holder, first, second RWMutex) {
		t.do(holder.Lock)
		ctx1, cancel1 := context.WithCancel(context.Background())
		defer cancel1()
		ctx2, cancel2 := context.WithCancel(context.Background())
		defer cancel2()
		w1 := wait(first, write1, ctx1)
		w2 := wait(first, write2, ctx2)
		w3 := wait(second, write2, context.Background())
		t.blocks(w1, w2, w3)
		cancel2()
		t.failsWith(w2, context.Canceled)
		cancel1()
		t.failsWith(w1, context.Canceled)
		t.blocks(w3)
		t.do(holder.Unlock)
		t.succeeds(w3)
		if write2 {
			t.tryFails(holder.TryRLock, first.TryRLock)
			t.do(second.Unlock)
		} else {
			t.tryFails(holder.TryLock, first.TryLock)
			t.do(second.RUnlock)
		}
		// The canceled waits left nothing.
		t.do(holder.Lock, holder.Unlock, first.Lock, first.Unlock)
	}
}

func canceledWriterLetsReadersPass(t *rwFixture, holder, first, second RWMutex) {
	t.do(holder.RLock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	writer := startContext(ctx, first.LockContext)
	t.untilRefused(second.TryRLock, second.RUnlock)
	reader := startFunc(second.RLock)
	t.blocks(writer, reader)
	cancel()
	t.failsWith(writer, context.Canceled)
	t.succeeds(reader)
	t.do(first.RLock)
	for _, m := range []RWMutex{holder, first, second} {
		t.tryFails(first.TryLock)
		t.do(m.RUnlock)
	}
	t.do(first.Lock, first.Unlock)
}

func concurrentCancels(t *rwFixture, holder, first, second RWMutex) {
	t.do(holder.Lock)
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		writer, reader := startContext(ctx, first.LockContext), startContext(ctx, second.RLockContext)
		time.Sleep(time.Millisecond)
		cancel()
		t.failsWith(writer, context.Canceled)
		t.failsWith(reader, context.Canceled)
	}
	t.do(holder.Unlock)
	t.do(second.Lock, second.Unlock)
}

func rwExpired(t *rwFixture, holder, first, second RWMutex) {
	t.do(holder.Lock)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	writer, reader := startContext(ctx, first.LockContext), startContext(ctx, second.RLockContext)
	t.failsWith(writer, context.DeadlineExceeded)
	t.failsWith(reader, context.DeadlineExceeded)
	t.do(holder.Unlock)
	t.do(second.Lock, second.Unlock)
	t.do(holder.RLock)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	t.failsWith(startContext(ctx, first.LockContext), context.DeadlineExceeded)
	t.do(second.RLock, second.RUnlock, holder.RUnlock)
	t.do(first.Lock, first.Unlock)
}

func cancelDuringUnlock(t *rwFixture, holder, first, second RWMutex) {
	var inside atomic.Int32
	for i := range 80 {
		t.do(holder.Lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var waiters []<-chan error
		for _, m := range []RWMutex{first, second} {
			waiters = append(waiters, startContext(ctx, func(ctx context.Context) error {
				if err := m.LockContext(ctx); err != nil {
					return err
				}
				if inside.Add(1) != 1 {
					return errors.New("two goroutines hold the lock for writing")
				}
				inside.Add(-1)
				m.Unlock()
				return nil
			}))
		}
		time.Sleep(time.Duration(i%4) * 300 * time.Microsecond)
		go cancel()
		t.do(holder.Unlock)
		for _, w := range waiters {
			if err := t.result(w); err != nil && err != context.Canceled {
				t.Fatal(err)
			}
		}
	}
	t.do(holder.Lock, holder.Unlock)
}
