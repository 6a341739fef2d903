package locktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
)

type rFixture = fixture[RMutex]

func testRMutex(t *testing.T, open func(name string) (RMutex, error)) {
	s := &rFixture{
		T:       t,
		kind:    "RMutex",
		newLock: func(name string, _ int64) (RMutex, error) { return open(name) },
		remote:  func(p *process) RMutex { return remoteRMutex{p: p} },
	}
	t.Run("LeavesNoGoroutines", func(t *testing.T) { rLeavesNoGoroutines(s.sub(t)) }) // not parallel: it counts goroutines
	s.runLayouts("OnlyOwnerLocksAgain", reentrant)
	s.run("OwnersExcludeEachOther", ownersExclude)
	s.run("ProcessesExcludeEachOther", ownersOfProcessesExclude)
	s.runLayouts("OtherOwnerWaitsForLastUnlock", otherOwnerWaitsForLastUnlock)
	s.run("GoroutinesOfOneOwnerLockTogether", goroutinesOfOwnerLockTogether)
	s.run("WaitersSurviveCancelOfAnother", waitersSurviveCancel)
	s.run("NextOwnerLocksAfterAllCanceled", nextOwnerLocks)
	s.runLayouts("CanceledWaitLeavesNothing", rCanceledLeavesNothing)
	s.runLayouts("CancelDuringUnlockLosesNothing", rCancelDuringUnlock)
	s.runLayouts("DoneContextFails", rDoneContext)
	s.run("ObjectsOfOneNameAreOneLock", objectsAreOneLock)
	s.run("DepthDoesNotBlock", depthDoesNotBlock)
	s.run("KilledOwnerFreesLock", killedOwner)
	s.run("KilledWaiterLeavesNothing", rKilledWaiter)
	s.run("StoppedOwnerKeepsLock", rStoppedOwner)
	s.runLayouts("MisusePanicsAndChangesNothing", rMisuse)
	s.run("Do", doLocksForOwner)
	s.run("DoNestsAcrossLocks", doNested)
	s.run("DoWaitCanBeCanceled", doWaits)
	s.run("DoUnlocksAfterPanic", doPanics)
	s.runLayouts("LockerLocksForItsOwner", locker)
	s.run("DifferentNamesAreDifferentLocks", rNames)
	s.run("Close", rClose)
}

// A remoteRMutex is an RMutex in another process. Each owner of this process
// stands for one owner of that process.
type remoteRMutex struct {
	RMutex // nil: provides Do, which the tests do not call remotely
	p      *process
}

func (m remoteRMutex) Lock(o interlock.Owner)               { m.p.must("Lock", o) }
func (m remoteRMutex) Unlock(o interlock.Owner)             { m.p.must("Unlock", o) }
func (m remoteRMutex) TryLock(o interlock.Owner) bool       { return m.p.must("TryLock", o) == "true" }
func (m remoteRMutex) Locker(o interlock.Owner) sync.Locker { return remoteLocker{m.p, o} }
func (m remoteRMutex) Close() error                         { return m.p.ask(context.Background(), "Close") }
func (m remoteRMutex) LockContext(ctx context.Context, o interlock.Owner) error {
	return m.p.ask(ctx, "LockContext", o)
}
func (m remoteRMutex) TryLockContext(ctx context.Context, o interlock.Owner) error {
	return m.p.ask(ctx, "TryLockContext", o)
}
func (m remoteRMutex) Depth(o interlock.Owner) int {
	depth, err := callValue[int](context.Background(), m.p, "Depth", o)
	if err != nil {
		panic(err)
	}
	return depth
}

type remoteLocker struct {
	p *process
	o interlock.Owner
}

func (l remoteLocker) Lock()   { l.p.must("lockerLock", l.o) }
func (l remoteLocker) Unlock() { l.p.must("lockerUnlock", l.o) }

func lockerLock(m RMutex, o interlock.Owner)   { m.Locker(o).Lock() }
func lockerUnlock(m RMutex, o interlock.Owner) { m.Locker(o).Unlock() }

// A boundRMutex is an RMutex and the owner that its methods use.
type boundRMutex struct {
	RMutex
	o interlock.Owner
}

func (m boundRMutex) lock()                                    { m.Lock(m.o) }
func (m boundRMutex) unlock()                                  { m.Unlock(m.o) }
func (m boundRMutex) tryLock() bool                            { return m.TryLock(m.o) }
func (m boundRMutex) lockContext(ctx context.Context) error    { return m.LockContext(ctx, m.o) }
func (m boundRMutex) tryLockContext(ctx context.Context) error { return m.TryLockContext(ctx, m.o) }
func (m boundRMutex) lockAndUnlock()                           { m.lock(); m.unlock() }

// bindOwners binds each RMutex to a new owner.
func bindOwners(a, b, c RMutex) (_, _, _ boundRMutex) {
	return boundRMutex{a, interlock.NewOwner()}, boundRMutex{b, interlock.NewOwner()}, boundRMutex{c, interlock.NewOwner()}
}

// wantDepth fails unless the owner has locked m want times.
func wantDepth(t *rFixture, m boundRMutex, want int) {
	t.Helper()
	var depth int
	t.do(func() { depth = m.Depth(m.o) })
	if depth != want {
		t.Fatalf("depth %d, want %d", depth, want)
	}
}

func rLeavesNoGoroutines(t *rFixture) {
	holder, m, other := bindOwners(t.open(), t.open(), t.open())
	leavesNoGoroutines(t, func() {
		t.do(holder.lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var canceled, others []<-chan error
		for range 10 {
			canceled = append(canceled, startContext(ctx, m.lockContext))
			others = append(others, startFunc(other.lockAndUnlock))
		}
		time.Sleep(10 * time.Millisecond)
		cancel()
		for _, c := range canceled {
			t.failsWith(c, context.Canceled)
		}
		t.do(holder.unlock)
		t.succeeds(others...)
	})
}

func reentrant(t *rFixture, holder, first, second RMutex) {
	m, a, b := bindOwners(holder, first, second)
	t.do(m.lock, m.lock)
	t.trySucceeds(m.tryLock)
	t.succeeds(startContext(t.Context(), m.lockContext), startContext(t.Context(), m.tryLockContext))
	for depth := 5; depth > 0; depth-- {
		wantDepth(t, m, depth)
		wantDepth(t, a, 0)
		t.tryFails(a.tryLock, b.tryLock)
		if err := t.result(startContext(t.Context(), b.tryLockContext)); !errors.Is(err, interlock.ErrLocked) {
			t.Errorf("error %v, want one that matches ErrLocked", err)
		}
		t.do(m.unlock)
	}
	wantDepth(t, m, 0)
	t.trySucceeds(a.tryLock)
	wantDepth(t, a, 1)
	t.tryFails(m.tryLock)
	t.do(a.unlock)
}

// ownersExclude first lets two goroutines of each owner lock several objects,
// and cancels some of them. Then it lets one goroutine of each owner change a
// plain variable, so that the race detector sees whether each unlock happens
// before the next owner's lock.
func ownersExclude(t *rFixture) {
	objects := []RMutex{t.open(), t.open()}
	var owners []interlock.Owner
	for range 4 {
		owners = append(owners, interlock.NewOwner())
	}
	var mu sync.Mutex // guards inside
	inside := make(map[interlock.Owner]int)
	t.succeeds(start(func() error {
		return repeatCalls(2*len(owners), 60, func(i int) error {
			m, o := objects[i%len(objects)], owners[i%len(owners)]
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i >= len(owners) {
				time.AfterFunc(time.Duration(i)*50*time.Microsecond, cancel)
			}
			if err := m.LockContext(ctx, o); err != nil {
				return unlessCanceled(ctx, err)
			}
			defer m.Unlock(o)
			mu.Lock()
			inside[o]++
			alone := len(inside) == 1
			mu.Unlock()
			time.Sleep(10 * time.Microsecond)
			if !alone {
				return errors.New("two owners hold the lock")
			}
			m.Lock(o)
			if m.Depth(o) < 2 {
				return fmt.Errorf("depth %d after a second lock", m.Depth(o))
			}
			m.Unlock(o)
			mu.Lock()
			defer mu.Unlock()
			if inside[o]--; inside[o] == 0 {
				delete(inside, o)
			}
			return nil
		})
	}))

	n := 0
	t.succeeds(start(func() error {
		return repeatCalls(len(owners), 60, func(i int) error {
			m, o := objects[i%len(objects)], owners[i]
			m.Lock(o)
			defer m.Unlock(o)
			before := n
			time.Sleep(10 * time.Microsecond)
			n = before + 1
			return nil
		})
	}))
	if n != len(owners)*60 {
		t.Errorf("%d additions, want %d: updates were lost", n, len(owners)*60)
	}
}

// addNested adds to the counter n times for each of 4 owners. Each owner locks
// twice and unlocks once before it adds.
func addNested(m RMutex, c counter, n int) error {
	var owners []interlock.Owner
	for range 4 {
		owners = append(owners, interlock.NewOwner())
	}
	return repeatCalls(len(owners), n, func(i int) error {
		o := owners[i]
		m.Lock(o)
		m.Lock(o)
		m.Unlock(o)
		err := c.add()
		m.Unlock(o)
		return err
	})
}

func ownersOfProcessesExclude(t *rFixture) {
	c := newCounter(t)
	m := t.open()
	const others, n = 3, 40
	calls := []<-chan error{start(func() error { return addNested(m, c, n) })}
	for range others {
		p := t.process()
		calls = append(calls, start(func() error { return p.ask(context.Background(), "addNested", c, n) }))
	}
	t.succeeds(calls...)
	t.wantCounter(c, (1+others)*4*n)
}

func otherOwnerWaitsForLastUnlock(t *rFixture, holder, first, second RMutex) {
	m, a, b := bindOwners(holder, first, second)
	t.do(m.lock, m.lock)
	others := []<-chan error{startFunc(a.lockAndUnlock), startFunc(b.lockAndUnlock)}
	t.blocks(others...)
	t.do(m.lock, m.unlock, m.unlock) // the owner still holds one lock
	t.blocks(others...)
	t.do(m.unlock)
	t.succeeds(others...)
}

// goroutinesOfOwnerLockTogether checks that waiting goroutines of one owner get
// the lock together, and that the last of them frees it.
func goroutinesOfOwnerLockTogether(t *rFixture) {
	remote, m, other := bindOwners(t.openRemote(), t.open(), t.open())
	t.do(remote.lock)
	var waiters []<-chan error
	for range 3 {
		waiters = append(waiters, startFunc(m.lock))
	}
	t.blocks(waiters...)
	wantDepth(t, m, 0)
	t.tryFails(m.tryLock)
	t.do(remote.unlock)
	t.succeeds(waiters...)
	wantDepth(t, m, 3)
	next, there := startFunc(other.lock), startFunc(remote.lock)
	for range 3 {
		t.blocks(next, there)
		t.do(m.unlock)
	}
	select {
	case err := <-next:
		t.must(err)
		t.do(other.unlock)
		t.succeeds(there)
		t.do(remote.unlock)
	case err := <-there:
		t.must(err)
		t.do(remote.unlock)
		t.succeeds(next)
		t.do(other.unlock)
	case <-time.After(timeout):
		t.Fatal("both calls block")
	}
}
