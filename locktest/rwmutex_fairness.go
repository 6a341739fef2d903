package locktest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/interlock-go/interlock"
)

func writerStopsReaders(t *rwFixture, holder, first, second RWMutex) {
	t.do(holder.RLock)
	writer := startFunc(first.Lock)
	t.untilRefused(second.TryRLock, second.RUnlock)
	t.untilRefused(holder.TryRLock, holder.RUnlock)
	reader := startFunc(second.RLock)
	t.blocks(writer, reader)
	t.do(holder.RUnlock)
	t.succeeds(writer)
	t.blocks(reader)
	t.do(first.Unlock)
	t.succeeds(reader)
	t.do(second.RUnlock)
}

func tryDoesNotOvertake(t *rwFixture, holder, first, second RWMutex) {
	for range 5 {
		t.do(holder.RLock)
		writer := startFunc(first.Lock)
		t.untilRefused(second.TryRLock, second.RUnlock)
		t.untilRefused(holder.TryRLock, holder.RUnlock)
		for _, m := range []RWMutex{holder, second} {
			for _, try := range []func(context.Context) error{m.TryLockContext, m.TryRLockContext} {
				if err := t.result(startContext(t.Context(), try)); !errors.Is(err, interlock.ErrLocked) {
					t.Errorf("error %v, want one that matches ErrLocked", err)
				}
			}
		}
		// The next holder is the writer.
		t.do(holder.RUnlock)
		t.tryFails(holder.TryLock, second.TryLock, second.TryRLock)
		t.succeeds(writer)
		t.do(first.Unlock)
	}
}

// keepReading locks for reading on 4 goroutines until ctx is done. Each holds
// the lock for a millisecond, so that there is always a reader.
func keepReading(ctx context.Context, m RWMutex) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for m.RLockContext(ctx) == nil {
				time.Sleep(time.Millisecond)
				m.RUnlock()
			}
		}()
		time.Sleep(time.Millisecond / 4)
	}
	wg.Wait()
}

// keepWriting locks for writing on each goroutine, without pauses, until ctx is
// done.
func keepWriting(ctx context.Context, m RWMutex, goroutines int) {
	var wg sync.WaitGroup
	for range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for m.LockContext(ctx) == nil {
				time.Sleep(100 * time.Microsecond)
				m.Unlock()
			}
		}()
	}
	wg.Wait()
}

// readersDoNotStarve locks for writing while readers of other processes
// overlap.
func readersDoNotStarve(t *rwFixture, processes int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var busy []<-chan error
	for range processes {
		p := t.process()
		busy = append(busy, startContext(ctx, func(ctx context.Context) error { return p.ask(ctx, "keepReading") }))
	}
	locksRepeatedly(t, t.open())
	cancel()
	t.succeeds(busy...)
}

// writersDoNotStarve locks for writing while goroutines of another process do
// the same without pauses.
func writersDoNotStarve(t *rwFixture, goroutines int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := t.process()
	busy := startContext(ctx, func(ctx context.Context) error { return p.ask(ctx, "keepWriting", goroutines) })
	locksRepeatedly(t, t.open())
	cancel()
	t.succeeds(busy)
}

// locksRepeatedly locks for writing many times, always while others hold the
// lock.
func locksRepeatedly(t *rwFixture, m RWMutex) {
	t.Helper()
	for range 30 {
		t.eventually("locked by others", func() bool {
			free := t.try(m.TryLock)
			if free {
				t.do(m.Unlock)
			}
			return !free
		})
		t.do(m.Lock)
		time.Sleep(10 * time.Microsecond)
		t.do(m.Unlock)
	}
}

func writersServedInOrder(t *rwFixture) {
	m, remote := t.open(), t.openRemote()
	for _, holder := range []RWMutex{m, remote} {
		servedInOrder(t, holder.Lock, holder.Unlock, func(note func()) {
			m.Lock()
			note()
			m.Unlock()
		})
	}
}
