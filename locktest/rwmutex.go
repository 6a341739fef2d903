package locktest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
)

type rwFixture = fixture[RWMutex]

func testRWMutex(t *testing.T, open func(name string) (RWMutex, error)) {
	s := &rwFixture{
		T:       t,
		kind:    "RWMutex",
		newLock: func(name string, _ int64) (RWMutex, error) { return open(name) },
		remote:  func(p *process) RWMutex { return remoteRWMutex{p} },
	}
	t.Run("LeavesNoGoroutines", func(t *testing.T) { rwLeavesNoGoroutines(s.sub(t)) }) // not parallel: it counts goroutines
	s.run("GoroutinesExcludeEachOther", goroutinesExclude)
	s.run("ProcessesExcludeEachOther", processesExclude)
	s.run("ExclusiveDespiteCancels", exclusiveDespiteCancels)
	s.runLayouts("ReadersShareUntilLastUnlocks", readersShare)
	s.runLayouts("WriterExcludesOthers", writerExcludes)
	s.runLayouts("WaitingWriterStopsNewReaders", writerStopsReaders)
	s.runLayouts("TryDoesNotOvertakeWriter", tryDoesNotOvertake)
	s.run("WriterNotStarvedByReaders", func(t *rwFixture) { readersDoNotStarve(t, 3) })
	s.run("WriterNotStarvedByReadersOfOneProcess", func(t *rwFixture) { readersDoNotStarve(t, 1) })
	s.run("WriterNotStarvedByWriter", func(t *rwFixture) { writersDoNotStarve(t, 1) })
	s.run("WriterNotStarvedByBusyProcess", func(t *rwFixture) { writersDoNotStarve(t, 4) })
	s.run("WritersOfOneObjectServedInOrder", writersServedInOrder)
	s.runLayouts("DoneContextFailsOnFreeLock", rwDoneContextFree)
	s.runLayouts("DoneContextFailsOnHeldLock", rwDoneContextHeld)
	s.runLayouts("CanceledWriterLeavesNothing", canceledLeavesNothing(true, true))
	s.runLayouts("CanceledReaderLeavesNothing", canceledLeavesNothing(false, false))
	s.runLayouts("CanceledReaderBeforeWriterLeavesNothing", canceledLeavesNothing(false, true))
	s.runLayouts("CanceledWriterBeforeReaderLeavesNothing", canceledLeavesNothing(true, false))
	s.runLayouts("CanceledWriterLetsReadersPass", canceledWriterLetsReadersPass)
	s.runLayouts("ConcurrentCancelsAreIndependent", concurrentCancels)
	s.runLayouts("ExpiredWaitLeavesNothing", rwExpired)
	s.runLayouts("CancelDuringUnlockLosesNothing", cancelDuringUnlock)
	s.run("KilledWriterFreesLock", func(t *rwFixture) { killedHolder(t, RWMutex.Lock) })
	s.run("KilledReaderFreesLock", func(t *rwFixture) { killedHolder(t, RWMutex.RLock) })
	s.run("KilledWaiterLeavesNothing", killedWaiter)
	s.run("KilledAnytimeFreesLock", rwKills)
	s.run("StoppedHolderKeepsLock", rwStoppedHolder)
	s.run("UnlockFromAnotherGoroutine", unlockFromAnotherGoroutine)
	s.runLayouts("MisusePanicsAndChangesNothing", rwMisuse)
	s.runLayouts("RLockerLocksForReading", rlocker)
	s.run("DifferentNamesAreDifferentLocks", rwNames)
	s.run("Close", rwClose)
}

// A remoteRWMutex is an RWMutex in another process.
type remoteRWMutex struct{ p *process }

func (m remoteRWMutex) Lock()                { m.p.must("Lock") }
func (m remoteRWMutex) Unlock()              { m.p.must("Unlock") }
func (m remoteRWMutex) RLock()               { m.p.must("RLock") }
func (m remoteRWMutex) RUnlock()             { m.p.must("RUnlock") }
func (m remoteRWMutex) TryLock() bool        { return m.p.must("TryLock") == "true" }
func (m remoteRWMutex) TryRLock() bool       { return m.p.must("TryRLock") == "true" }
func (m remoteRWMutex) Close() error         { return m.p.ask(context.Background(), "Close") }
func (m remoteRWMutex) RLocker() sync.Locker { return remoteRLocker(m) }

func (m remoteRWMutex) LockContext(ctx context.Context) error  { return m.p.ask(ctx, "LockContext") }
func (m remoteRWMutex) RLockContext(ctx context.Context) error { return m.p.ask(ctx, "RLockContext") }
func (m remoteRWMutex) TryLockContext(ctx context.Context) error {
	return m.p.ask(ctx, "TryLockContext")
}
func (m remoteRWMutex) TryRLockContext(ctx context.Context) error {
	return m.p.ask(ctx, "TryRLockContext")
}

type remoteRLocker struct{ p *process }

func (l remoteRLocker) Lock()   { l.p.must("rLockerLock") }
func (l remoteRLocker) Unlock() { l.p.must("rLockerUnlock") }

func rLockerLock(m RWMutex)   { m.RLocker().Lock() }
func rLockerUnlock(m RWMutex) { m.RLocker().Unlock() }

// rwCalls are the methods that take a context.
var rwCalls = map[string]func(RWMutex, context.Context) error{
	"LockContext":     RWMutex.LockContext,
	"RLockContext":    RWMutex.RLockContext,
	"TryLockContext":  RWMutex.TryLockContext,
	"TryRLockContext": RWMutex.TryRLockContext,
}

func rwLeavesNoGoroutines(t *rwFixture) {
	holder, m := t.open(), t.open()
	leavesNoGoroutines(t, func() {
		t.do(holder.Lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var canceled, others []<-chan error
		for i := range 30 {
			switch {
			case i%3 == 0:
				canceled = append(canceled, startContext(ctx, m.LockContext))
			case i%2 == 0:
				others = append(others, startFunc(func() { m.Lock(); m.Unlock() }))
			default:
				others = append(others, startFunc(func() { m.RLock(); m.RUnlock() }))
			}
		}
		time.Sleep(10 * time.Millisecond)
		cancel()
		for _, c := range canceled {
			t.failsWith(c, context.Canceled)
		}
		t.do(holder.Unlock)
		t.succeeds(others...)
	})
}

// goroutinesExclude uses plain variables, so that the race detector sees
// whether each unlock happens before the next lock.
func goroutinesExclude(t *rwFixture) {
	one := t.open()
	for name, objects := range map[string][]RWMutex{
		"one object":      {one},
		"several objects": {one, t.open(), t.open()},
	} {
		const writers, readers, n = 4, 4, 150
		var written, twice, sum int
		var read [readers]int
		t.must(t.result(start(func() error {
			return repeatCalls(writers+readers, n, func(i int) error {
				m := objects[i%len(objects)]
				if i < readers {
					m.RLock()
					defer m.RUnlock()
					read[i]++
					if twice != 2*written {
						return errors.New("a reader and a writer hold the lock")
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
			t.Errorf("%s: %d writes, want %d: updates were lost", name, written, writers*n)
		}
	}
}

// addRepeatedly adds to the counter n times on each of 4 goroutines. After each
// addition it reads the counter.
func addRepeatedly(m RWMutex, c counter, n int) error {
	return repeatCalls(4, n, func(i int) error {
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

func processesExclude(t *rwFixture) {
	c := newCounter(t)
	m := t.open()
	const others, n = 3, 60
	calls := []<-chan error{start(func() error { return addRepeatedly(m, c, n) })}
	for range others {
		p := t.process()
		calls = append(calls, start(func() error { return p.ask(context.Background(), "addRepeatedly", c, n) }))
	}
	t.succeeds(calls...)
	t.wantCounter(c, (1+others)*4*n)
}

// lockRandomly locks n times on each of 6 goroutines, every time in a random
// way. Half of the contexts end soon. Writers add to the counter and readers
// read it. lockRandomly returns the number of additions.
func lockRandomly(m RWMutex, c counter, n int) (int, error) {
	var added atomic.Int64
	err := repeatCalls(6, n, func(int) error {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
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

func exclusiveDespiteCancels(t *rwFixture) {
	c := newCounter(t)
	const n = 100
	var added atomic.Int64
	var calls []<-chan error
	for range 2 {
		m, p := t.open(), t.process()
		calls = append(calls, start(func() error {
			k, err := lockRandomly(m, c, n)
			added.Add(int64(k))
			return err
		}), start(func() error {
			k, err := callValue[int](context.Background(), p, "lockRandomly", c, n)
			added.Add(int64(k))
			return err
		}))
	}
	t.succeeds(calls...)
	t.wantCounter(c, int(added.Load()))
	m := t.open()
	t.do(m.Lock, m.Unlock) // the lock is free
}

func readersShare(t *rwFixture, holder, first, second RWMutex) {
	all := []RWMutex{holder, first, second}
	for _, m := range all {
		t.do(m.RLock)
		t.trySucceeds(m.TryRLock)
		t.succeeds(startContext(t.Context(), m.TryRLockContext))
	}
	for _, m := range all {
		for range 3 {
			t.tryFails(holder.TryLock, first.TryLock, second.TryLock)
			t.do(m.RUnlock)
		}
	}
	t.trySucceeds(second.TryLock)
	t.do(second.Unlock)
}

func writerExcludes(t *rwFixture, holder, first, second RWMutex) {
	t.do(holder.Lock)
	for _, m := range []RWMutex{holder, first, second} {
		t.tryFails(m.TryLock, m.TryRLock)
		for name, call := range rwCalls {
			if name == "LockContext" || name == "RLockContext" {
				continue
			}
			err := t.result(startContext(t.Context(), func(ctx context.Context) error { return call(m, ctx) }))
			if !errors.Is(err, interlock.ErrLocked) {
				t.Errorf("%s: error %v, want one that matches ErrLocked", name, err)
			}
		}
	}
	writer, reader := startFunc(first.Lock), startFunc(second.RLock)
	t.blocks(writer, reader)
	t.do(holder.Unlock)
	// Either of them may be next.
	select {
	case err := <-writer:
		t.must(err)
		t.tryFails(holder.TryRLock)
		t.do(first.Unlock)
		t.succeeds(reader)
		t.do(second.RUnlock)
	case err := <-reader:
		t.must(err)
		t.tryFails(holder.TryLock)
		t.do(second.RUnlock)
		t.succeeds(writer)
		t.do(first.Unlock)
	case <-time.After(timeout):
		t.Fatal("both calls block")
	}
}
