package locktest

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
)

type rwScene = scene[RWMutex]

func testRWMutex(t *testing.T, open func(name string) (RWMutex, error)) {
	s := &rwScene{
		T:    t,
		kind: "RWMutex",
		open: func(name string, _ int64) (RWMutex, error) { return open(name) },
		far:  func(p *process) RWMutex { return farRWMutex{p} },
	}
	t.Run("leaves no goroutines", func(t *testing.T) { rwLeavesNoGoroutines(s.at(t)) }) // before the parallel ones
	s.run("goroutines exclude each other", goroutinesExclude)
	s.run("processes exclude each other", processesExclude)
	s.run("storm of cancels", rwStorm)
	s.everywhere("readers share until the last is out", readersShare)
	s.everywhere("a writer keeps all others out", writerExcludes)
	s.everywhere("a waiting writer stops new readers", writerStopsReaders)
	s.everywhere("a waiting writer is not overtaken by tries", triesDoNotOvertake)
	s.run("readers do not starve a writer", func(t *rwScene) { readersDoNotStarve(t, 3) })
	s.run("readers of one process do not starve a writer", func(t *rwScene) { readersDoNotStarve(t, 1) })
	s.run("a busy writer does not starve another", func(t *rwScene) { writersDoNotStarve(t, 1) })
	s.run("busy goroutines do not starve another process", func(t *rwScene) { writersDoNotStarve(t, 4) })
	s.run("waiting writers of one object are served in order", rwOrder)
	s.everywhere("a context that has ended fails on a free lock", rwEndedFree)
	s.everywhere("a context that has ended fails on a locked lock", rwEndedLocked)
	for _, modes := range []string{"writer", "reader", "reader behind a writer", "writer behind a reader"} {
		s.everywhere("a cancelled "+modes+" leaves nothing", func(t *rwScene, holder, first, second RWMutex) {
			writers := [2]bool{modes == "writer" || modes == "writer behind a reader", modes == "writer" || modes == "reader behind a writer"}
			cancelledLeavesNothing(t, holder, first, second, writers)
		})
	}
	s.everywhere("a cancelled writer lets readers pass", cancelledWriterLetsPass)
	s.everywhere("cancels at once do not disturb each other", cancelsAtOnce)
	s.everywhere("an expired wait leaves nothing", expiredLeavesNothing)
	s.everywhere("a cancel races the unlock", cancelRacesUnlock)
	s.run("killed writer frees the lock", func(t *rwScene) { killedHolder(t, RWMutex.Lock) })
	s.run("killed reader frees the lock", func(t *rwScene) { killedHolder(t, RWMutex.RLock) })
	s.run("killed waiter leaves nothing", killedWaiter)
	s.run("killed at any moment", rwKills)
	s.run("stopped holder keeps the lock", rwStoppedHolder)
	s.run("another goroutine can unlock", otherGoroutineUnlocks)
	s.everywhere("misuse panics and changes nothing", rwMisuse)
	s.everywhere("RLocker locks for reading", rlocker)
	s.run("different names are different locks", rwNames)
	s.run("Close", rwClose)
}

// A farRWMutex is one in another process.
type farRWMutex struct{ p *process }

func (m farRWMutex) Lock()                { m.p.must("Lock") }
func (m farRWMutex) Unlock()              { m.p.must("Unlock") }
func (m farRWMutex) RLock()               { m.p.must("RLock") }
func (m farRWMutex) RUnlock()             { m.p.must("RUnlock") }
func (m farRWMutex) TryLock() bool        { return m.p.must("TryLock") == "true" }
func (m farRWMutex) TryRLock() bool       { return m.p.must("TryRLock") == "true" }
func (m farRWMutex) Close() error         { return m.p.ask(context.Background(), "Close") }
func (m farRWMutex) RLocker() sync.Locker { return farRLocker(m) }

func (m farRWMutex) LockContext(ctx context.Context) error    { return m.p.ask(ctx, "LockContext") }
func (m farRWMutex) RLockContext(ctx context.Context) error   { return m.p.ask(ctx, "RLockContext") }
func (m farRWMutex) TryLockContext(ctx context.Context) error { return m.p.ask(ctx, "TryLockContext") }
func (m farRWMutex) TryRLockContext(ctx context.Context) error {
	return m.p.ask(ctx, "TryRLockContext")
}

type farRLocker struct{ p *process }

func (l farRLocker) Lock()   { l.p.must("rLockerLock") }
func (l farRLocker) Unlock() { l.p.must("rLockerUnlock") }

func rLockerLock(m RWMutex)   { m.RLocker().Lock() }
func rLockerUnlock(m RWMutex) { m.RLocker().Unlock() }

// rwCalls are the methods with a context.
var rwCalls = map[string]func(RWMutex, context.Context) error{
	"LockContext":     RWMutex.LockContext,
	"RLockContext":    RWMutex.RLockContext,
	"TryLockContext":  RWMutex.TryLockContext,
	"TryRLockContext": RWMutex.TryRLockContext,
}

func rwLeavesNoGoroutines(t *rwScene) {
	holder, m := t.here(), t.here()
	leavesNoGoroutines(t, func() {
		t.do(holder.Lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var cancelled, others []<-chan error
		for i := range 30 {
			switch {
			case i%3 == 0:
				cancelled = append(cancelled, startWith(ctx, m.LockContext))
			case i%2 == 0:
				others = append(others, starts(func() { m.Lock(); m.Unlock() }))
			default:
				others = append(others, starts(func() { m.RLock(); m.RUnlock() }))
			}
		}
		time.Sleep(10 * time.Millisecond)
		cancel()
		for _, c := range cancelled {
			t.ends(c, context.Canceled)
		}
		t.do(holder.Unlock)
		t.succeeds(others...)
	})
}

// leavesNoGoroutines fails if a call leaves more goroutines than there were. Before they are
// counted it is made once: some may remain for good.
func leavesNoGoroutines[L lock](t *scene[L], call func()) {
	call()
	time.Sleep(10 * time.Millisecond)
	// Once a program has asked for a signal, package os/signal has a goroutine for ever.
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt)
	signal.Stop(c)
	before := runtime.NumGoroutine()
	for range 10 {
		call()
	}
	t.until("as few goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}

// Plain variables, so that the race detector sees whether each unlock happens before the next lock.
func goroutinesExclude(t *rwScene) {
	one := t.here()
	for name, objects := range map[string][]RWMutex{
		"one object":      {one},
		"several objects": {one, t.here(), t.here()},
	} {
		const writers, readers, n = 4, 4, 150
		var written, twice, sum int
		var read [readers]int
		t.must(t.result(start(func() error {
			return hammer(writers+readers, n, func(i int) error {
				m := objects[i%len(objects)]
				if i < readers {
					m.RLock()
					defer m.RUnlock()
					read[i]++
					if twice != 2*written {
						return errors.New("a reader beside a writer")
					}
					return nil
				}
				m.Lock()
				defer m.Unlock()
				before := written
				time.Sleep(10 * time.Microsecond)
				written = before + 1
				twice += 2
				sum = 0
				for _, r := range read {
					sum += r
				}
				return nil
			})
		})))
		if written != writers*n || twice != 2*written {
			t.Errorf("%s: %d of %d left", name, written, writers*n)
		}
	}
}

// addOften adds to the counter, n times on each of 4 goroutines, and looks at it as often.
func addOften(m RWMutex, c counter, n int) error {
	return hammer(4, n, func(i int) error {
		m.Lock()
		err := c.add()
		m.Unlock()
		if err != nil {
			return err
		}
		m.RLock()
		defer m.RUnlock()
		_, err = c.get()
		return err
	})
}

func processesExclude(t *rwScene) {
	c := newCounter(t)
	m := t.here()
	const others, n = 3, 60
	calls := []<-chan error{start(func() error { return addOften(m, c, n) })}
	for range others {
		p := t.process()
		calls = append(calls, start(func() error { return p.ask(context.Background(), "addOften", c, n) }))
	}
	t.succeeds(calls...)
	t.wants(c, (1+others)*4*n)
}

// storm locks in every way, n times on each of 6 goroutines, half of which with contexts that soon end. The writers add to the
// counter, the readers look at it. It returns how often it added.
func storm(m RWMutex, c counter, n int) (int, error) {
	var added atomic.Int64
	err := hammer(6, n, func(int) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if rand.N(2) == 0 {
			ctx, cancel = context.WithTimeout(ctx, rand.N(2*time.Millisecond))
		}
		defer cancel()
		try := rand.N(4) == 0
		if rand.N(2) == 0 {
			lock := m.LockContext
			if try {
				lock = m.TryLockContext
			}
			if err := lock(ctx); err != nil {
				return unlessRefused(ctx, try, err)
			}
			defer m.Unlock()
			added.Add(1)
			return c.add()
		}
		lock := m.RLockContext
		if try {
			lock = m.TryRLockContext
		}
		if err := lock(ctx); err != nil {
			return unlessRefused(ctx, try, err)
		}
		defer m.RUnlock()
		_, err := c.get()
		return err
	})
	return int(added.Load()), err
}

// unlessRefused returns an error that there should not have been.
func unlessRefused(ctx context.Context, try bool, err error) error {
	if err == ctx.Err() && err == context.DeadlineExceeded || try && errors.Is(err, interlock.ErrLocked) {
		return nil
	}
	return err
}

func rwStorm(t *rwScene) {
	c := newCounter(t)
	const n = 100
	var added atomic.Int64
	var calls []<-chan error
	for range 2 {
		m, p := t.here(), t.process()
		calls = append(calls, start(func() error {
			k, err := storm(m, c, n)
			added.Add(int64(k))
			return err
		}), start(func() error {
			k, err := callFor[int](context.Background(), p, "storm", c, n)
			added.Add(int64(k))
			return err
		}))
	}
	t.succeeds(calls...)
	t.wants(c, int(added.Load()))
	m := t.here()
	t.do(m.Lock, m.Unlock) // free
}

func readersShare(t *rwScene, holder, first, second RWMutex) {
	all := []RWMutex{holder, first, second}
	for _, m := range all {
		t.do(m.RLock)
		t.grants(m.TryRLock)
		t.succeeds(startWith(t.Context(), m.TryRLockContext))
	}
	for _, m := range all {
		for range 3 {
			t.refuses(holder.TryLock, first.TryLock, second.TryLock)
			t.do(m.RUnlock)
		}
	}
	t.grants(second.TryLock)
	t.do(second.Unlock)
}

func writerExcludes(t *rwScene, holder, first, second RWMutex) {
	t.do(holder.Lock)
	for _, m := range []RWMutex{holder, first, second} {
		t.refuses(m.TryLock, m.TryRLock)
		for name, call := range rwCalls {
			if name == "LockContext" || name == "RLockContext" {
				continue
			}
			err := t.result(startWith(t.Context(), func(ctx context.Context) error { return call(m, ctx) }))
			if !errors.Is(err, interlock.ErrLocked) {
				t.Errorf("%s: error %v, want one that matches ErrLocked", name, err)
			}
		}
	}
	writer, reader := starts(first.Lock), starts(second.RLock)
	t.waits(writer, reader)
	t.do(holder.Unlock)
	// In an order that nobody promises.
	select {
	case err := <-writer:
		t.must(err)
		t.refuses(holder.TryRLock)
		t.do(first.Unlock)
		t.succeeds(reader)
		t.do(second.RUnlock)
	case err := <-reader:
		t.must(err)
		t.refuses(holder.TryLock)
		t.do(second.RUnlock)
		t.succeeds(writer)
		t.do(first.Unlock)
	case <-time.After(patience):
		t.Fatal("both wait")
	}
}

func writerStopsReaders(t *rwScene, holder, first, second RWMutex) {
	t.do(holder.RLock)
	writer := starts(first.Lock)
	t.closes(second.TryRLock, second.RUnlock)
	t.closes(holder.TryRLock, holder.RUnlock)
	reader := starts(second.RLock)
	t.waits(writer, reader)
	t.do(holder.RUnlock)
	t.succeeds(writer)
	t.waits(reader)
	t.do(first.Unlock)
	t.succeeds(reader)
	t.do(second.RUnlock)
}

func triesDoNotOvertake(t *rwScene, holder, first, second RWMutex) {
	for range 5 {
		t.do(holder.RLock)
		writer := starts(first.Lock)
		t.closes(second.TryRLock, second.RUnlock)
		t.closes(holder.TryRLock, holder.RUnlock)
		for _, m := range []RWMutex{holder, second} {
			for _, try := range []func(context.Context) error{m.TryLockContext, m.TryRLockContext} {
				if err := t.result(startWith(t.Context(), try)); !errors.Is(err, interlock.ErrLocked) {
					t.Errorf("error %v, want one that matches ErrLocked", err)
				}
			}
		}
		// When the lock is free, it is the writer's.
		t.do(holder.RUnlock)
		t.refuses(holder.TryLock, second.TryLock, second.TryRLock)
		t.succeeds(writer)
		t.do(first.Unlock)
	}
}

// keepReading locks for reading, on 4 goroutines and for a millisecond each, so that somebody has the lock at any time.
func keepReading(ctx context.Context, m RWMutex) {
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for m.RLockContext(ctx) == nil {
				time.Sleep(time.Millisecond)
				m.RUnlock()
			}
		})
		time.Sleep(time.Millisecond / 4)
	}
	wg.Wait()
}

// keepWriting locks for writing on some goroutines, without a pause.
func keepWriting(ctx context.Context, m RWMutex, goroutines int) {
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for m.LockContext(ctx) == nil {
				time.Sleep(100 * time.Microsecond)
				m.Unlock()
			}
		})
	}
	wg.Wait()
}

func readersDoNotStarve(t *rwScene, processes int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var busy []<-chan error
	for range processes {
		p := t.process()
		busy = append(busy, startWith(ctx, func(ctx context.Context) error { return p.ask(ctx, "keepReading") }))
	}
	takesTurns(t, t.here())
	cancel()
	t.succeeds(busy...)
}

func writersDoNotStarve(t *rwScene, goroutines int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := t.process()
	busy := startWith(ctx, func(ctx context.Context) error { return p.ask(ctx, "keepWriting", goroutines) })
	takesTurns(t, t.here())
	cancel()
	t.succeeds(busy)
}

// takesTurns locks for writing again and again, while others have the lock.
func takesTurns(t *rwScene, m RWMutex) {
	t.Helper()
	for range 30 {
		t.until("locked by others", func() bool {
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

func rwOrder(t *rwScene) {
	m, far := t.here(), t.elsewhere()
	for _, holder := range []RWMutex{m, far} {
		inOrder(t, holder.Lock, holder.Unlock, func(note func()) {
			m.Lock()
			note()
			m.Unlock()
		})
	}
}

// inOrder fails unless waiters are served in the order in which they come. To come in order
// they have to come slowly, and now and then that is not slow enough; so they may try again.
// A waiter calls note when it has the lock.
func inOrder[L lock](t *scene[L], lock, unlock func(), wait func(note func())) {
	t.Helper()
	var order []int
	for range 5 {
		order = nil
		t.do(lock)
		var waiters []<-chan error
		for i := range 10 {
			begun := make(chan struct{})
			waiters = append(waiters, starts(func() {
				close(begun)
				wait(func() { order = append(order, i) })
			}))
			<-begun
			time.Sleep(5 * time.Millisecond)
		}
		t.do(unlock)
		t.succeeds(waiters...)
		if slices.IsSorted(order) {
			return
		}
	}
	t.Error("served in the order ", order)
}

func rwEndedFree(t *rwScene, holder, first, second RWMutex) {
	for _, m := range []RWMutex{holder, first, second} {
		for _, ctx := range endedContexts() {
			for name, call := range rwCalls {
				if err := t.result(startWith(ctx, func(ctx context.Context) error { return call(m, ctx) })); err != ctx.Err() {
					t.Errorf("%s: error %v, want %v itself", name, err, ctx.Err())
				}
			}
		}
		t.grants(m.TryLock)
		t.do(m.Unlock)
	}
}

func rwEndedLocked(t *rwScene, holder, first, second RWMutex) {
	t.do(holder.Lock)
	for _, m := range []RWMutex{holder, first} {
		for _, ctx := range endedContexts() {
			for name, call := range rwCalls {
				if err := t.result(startWith(ctx, func(ctx context.Context) error { return call(m, ctx) })); err != ctx.Err() {
					t.Errorf("%s: error %v, want %v itself", name, err, ctx.Err())
				}
			}
		}
	}
	t.refuses(second.TryRLock)
	t.do(holder.Unlock)
	t.grants(first.TryLock)
	t.do(first.Unlock)
}

// Of three who wait, the one in the middle gives up, then the first; the last lives on.
func cancelledLeavesNothing(t *rwScene, holder, first, second RWMutex, writers [2]bool) {
	wait := func(m RWMutex, write bool, ctx context.Context) <-chan error {
		defer time.Sleep(5 * time.Millisecond) // so that they come in order, most likely
		if write {
			return startWith(ctx, m.LockContext)
		}
		return startWith(ctx, m.RLockContext)
	}
	t.do(holder.Lock)
	ctx1, cancel1 := context.WithCancel(context.Background())
	defer cancel1()
	ctx2, cancel2 := context.WithCancel(context.Background())
	defer cancel2()
	w1 := wait(first, writers[0], ctx1)
	w2 := wait(first, writers[1], ctx2)
	w3 := wait(second, writers[1], context.Background())
	t.waits(w1, w2, w3)
	cancel2()
	t.ends(w2, context.Canceled)
	cancel1()
	t.ends(w1, context.Canceled)
	t.waits(w3)
	t.do(holder.Unlock)
	t.succeeds(w3)
	if writers[1] {
		t.refuses(holder.TryRLock, first.TryRLock)
		t.do(second.Unlock)
	} else {
		t.refuses(holder.TryLock, first.TryLock)
		t.do(second.RUnlock)
	}
	t.do(holder.Lock, holder.Unlock, first.Lock, first.Unlock) // nothing is left of the waits
}

func cancelledWriterLetsPass(t *rwScene, holder, first, second RWMutex) {
	t.do(holder.RLock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	writer := startWith(ctx, first.LockContext)
	t.closes(second.TryRLock, second.RUnlock)
	reader := starts(second.RLock)
	t.waits(writer, reader)
	cancel()
	t.ends(writer, context.Canceled)
	t.succeeds(reader)
	t.do(first.RLock)
	for _, m := range []RWMutex{holder, first, second} {
		t.refuses(first.TryLock)
		t.do(m.RUnlock)
	}
	t.do(first.Lock, first.Unlock)
}

func cancelsAtOnce(t *rwScene, holder, first, second RWMutex) {
	t.do(holder.Lock)
	for range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		writer, reader := startWith(ctx, first.LockContext), startWith(ctx, second.RLockContext)
		time.Sleep(time.Millisecond)
		cancel()
		t.ends(writer, context.Canceled)
		t.ends(reader, context.Canceled)
	}
	t.do(holder.Unlock)
	t.do(second.Lock, second.Unlock)
}

func expiredLeavesNothing(t *rwScene, holder, first, second RWMutex) {
	t.do(holder.Lock)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	writer, reader := startWith(ctx, first.LockContext), startWith(ctx, second.RLockContext)
	t.ends(writer, context.DeadlineExceeded)
	t.ends(reader, context.DeadlineExceeded)
	t.do(holder.Unlock)
	t.do(second.Lock, second.Unlock)
	t.do(holder.RLock)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	t.ends(startWith(ctx, first.LockContext), context.DeadlineExceeded)
	t.do(second.RLock, second.RUnlock, holder.RUnlock)
	t.do(first.Lock, first.Unlock)
}

func cancelRacesUnlock(t *rwScene, holder, first, second RWMutex) {
	var inside atomic.Int32
	for i := range 80 {
		t.do(holder.Lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var waiters []<-chan error
		for _, m := range []RWMutex{first, second} {
			waiters = append(waiters, startWith(ctx, func(ctx context.Context) error {
				if err := m.LockContext(ctx); err != nil {
					return err
				}
				if inside.Add(1) != 1 {
					return errors.New("two have the lock")
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

// lockAndUnlock is what a waiter does who wants to see that it can.
func lockAndUnlock(m RWMutex) <-chan error {
	return starts(func() { m.Lock(); m.Unlock() })
}

func killedHolder(t *rwScene, lock func(RWMutex)) {
	m, other, p := t.here(), t.elsewhere(), t.process()
	t.do(func() { lock(t.far(p)) })
	here, there := lockAndUnlock(m), lockAndUnlock(other)
	t.waits(here, there)
	p.Kill()
	t.succeeds(here, there)
}

func killedWaiter(t *rwScene) {
	m, p, other := t.here(), t.process(), t.elsewhere()
	t.do(m.RLock)
	startWith(context.Background(), t.far(p).LockContext)
	t.closes(m.TryRLock, m.RUnlock)
	behind := lockAndUnlock(other)
	t.waits(behind)
	p.Kill()
	t.do(m.RUnlock)
	t.succeeds(behind)

	// Readers who waited for who is dead do not wait any more.
	p = t.process()
	t.do(m.RLock)
	startWith(context.Background(), t.far(p).LockContext)
	t.closes(m.TryRLock, m.RUnlock)
	reader := starts(other.RLock)
	t.waits(reader)
	p.Kill()
	t.succeeds(reader)
	t.do(other.RUnlock, m.RUnlock)
	t.do(m.Lock, m.Unlock)
}

func rwKills(t *rwScene) {
	m := t.here()
	var busy []*process
	for range 4 {
		p := t.process()
		for _, job := range []func() error{
			func() error { return p.ask(context.Background(), "keepReading") },
			func() error { return p.ask(context.Background(), "keepWriting", 2) },
		} {
			start(job)
		}
		busy = append(busy, p)
	}
	for _, p := range busy {
		t.do(m.Lock, m.Unlock)
		time.Sleep(rand.N(5 * time.Millisecond))
		p.Kill()
		t.do(m.Lock, m.Unlock)
		t.do(m.RLock, m.RUnlock)
	}
	t.grants(m.TryLock)
	t.do(m.Unlock)
}

func rwStoppedHolder(t *rwScene) {
	if !canStop {
		t.Skip("processes cannot be stopped here")
	}
	m, p, other := t.here(), t.process(), t.elsewhere()
	t.do(t.far(p).Lock)
	p.stop()
	here, there := lockAndUnlock(m), lockAndUnlock(other)
	t.waits(here, there)
	t.refuses(m.TryLock, m.TryRLock, other.TryLock, other.TryRLock)
	p.resume()
	t.waits(here, there)
	t.do(t.far(p).Unlock)
	t.succeeds(here, there)
}

func otherGoroutineUnlocks(t *rwScene) {
	m, other := t.here(), t.here()
	t.do(m.Lock, m.Unlock, m.RLock, m.RLock, m.RUnlock) // each on a goroutine of its own
	t.refuses(other.TryLock)
	t.do(m.RUnlock)
	t.grants(other.TryLock)
	t.do(other.Unlock)
}

func rwMisuse(t *rwScene, m, other, third RWMutex) {
	t.panics("Unlock of an unlocked one", m.Unlock)
	t.panics("RUnlock of an unlocked one", m.RUnlock)
	t.do(m.RLock)
	t.panics("Unlock of one that is locked for reading", m.Unlock)
	if m != other {
		t.panics("Unlock by another object", other.Unlock)
		t.panics("RUnlock by another object", other.RUnlock)
	}
	t.refuses(third.TryLock)
	t.grants(third.TryRLock)
	t.do(third.RUnlock, m.RUnlock)
	t.panics("RUnlock after the last", m.RUnlock)
	t.do(m.Lock)
	t.panics("RUnlock of one that is locked for writing", m.RUnlock)
	if m != other {
		t.panics("Unlock by another object", other.Unlock)
		t.panics("RUnlock by another object", other.RUnlock)
	}
	t.refuses(third.TryRLock)
	t.do(m.Unlock)
	t.grants(other.TryLock)
	t.do(other.Unlock)
}

func rlocker(t *rwScene, m, other, third RWMutex) {
	l := m.RLocker()
	t.do(l.Lock, l.Lock)
	t.grants(other.TryRLock)
	t.do(l.Unlock, other.RUnlock)
	t.refuses(third.TryLock)
	t.do(l.Unlock)
	t.grants(third.TryLock)
	reader := starts(l.Lock)
	t.waits(reader)
	t.do(third.Unlock)
	t.succeeds(reader)
	t.do(m.RUnlock)
}

func rwNames(t *rwScene) {
	m := t.here()
	t.name += "-other"
	other := t.elsewhere()
	third := t.here()
	t.do(m.Lock)
	t.grants(other.TryLock)
	t.refuses(third.TryRLock)
	t.do(other.Unlock)
	t.grants(third.TryLock)
	t.do(third.Unlock, m.Unlock)
}

func rwClose(t *rwScene) {
	m, other := t.here(), t.here()
	refused := func(when string) {
		t.Helper()
		if t.shut(m) == nil {
			t.Fatal("closed while ", when)
		}
	}
	t.do(m.Lock)
	refused("locked for writing")
	t.refuses(other.TryRLock)
	t.do(m.Unlock, m.RLock)
	refused("locked for reading")
	t.refuses(other.TryLock)
	t.do(m.RUnlock, other.RLock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	waiter := startWith(ctx, m.LockContext)
	t.closes(other.TryRLock, other.RUnlock)
	refused("waited for")
	t.do(other.RUnlock)
	t.succeeds(waiter)
	t.do(m.Unlock)

	t.must(t.shut(m))
	if err := t.shut(m); !errors.Is(err, fs.ErrClosed) {
		t.Error("closed twice: ", err)
	}
	for name, call := range rwCalls {
		err := t.result(startWith(t.Context(), func(ctx context.Context) error { return call(m, ctx) }))
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: error %v, want one that matches fs.ErrClosed", name, err)
		}
	}
	for name, call := range map[string]func(){
		"Lock":     m.Lock,
		"RLock":    m.RLock,
		"TryLock":  func() { m.TryLock() },
		"TryRLock": func() { m.TryRLock() },
	} {
		if err, _ := t.panics(name+" after Close", call).(error); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close panics with %v, want an error that matches fs.ErrClosed", name, err)
		}
	}
	t.do(other.Lock, other.Unlock) // does not care
	again := t.here()
	t.do(again.Lock)
	t.refuses(other.TryLock)
	t.do(again.Unlock)
}
