package locktest_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

func init() {
	const (
		again    = "OnlyOwnerLocksAgain"
		canceled = "CanceledWaitLeavesNothing"
		misuse   = "MisusePanicsAndChangesNothing"
	)
	registerR("RMutexIgnoresOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rOneOwner{m} },
		"OwnersExcludeEachOther", again)
	registerR("RMutexNotReentrant",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rNotReentrant{m} },
		again)
	registerR("DepthAtMostOne",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDepthAtMostOne{m} },
		again)
	registerR("DepthBlocks",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rDepthBlocks{FileRMutex: m} },
		"DepthDoesNotBlock")
	registerR("RMutexUnlocksAllLevels",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rUnlocksAllLevels{m} },
		again, "OtherOwnerWaitsForLastUnlock", "LockerLocksForItsOwner")
	registerR("RMutexIgnoresMisuse",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rIgnoresMisuse{m} },
		misuse)
	registerR("UnlockUnlocksOtherOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rUnlocksOther{FileRMutex: m} },
		misuse)
	registerR("RMutexAcceptsZeroOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rAcceptsZeroOwner{m} },
		misuse)
	registerR("OneWaiterPerOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rOneWaiterPerOwner{FileRMutex: m} },
		"GoroutinesOfOneOwnerLockTogether")
	registerR("CancelCancelsAllWaiters",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rCancelsTogether{FileRMutex: m} },
		"WaitersSurviveCancelOfAnother")
	registerR("RMutexLocksAfterCancel",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rLocksAfterCancel{m} },
		canceled, "NextOwnerLocksAfterAllCanceled")
	registerR("RMutexIgnoresCancel",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rIgnoresCancel{m} },
		canceled, "NextOwnerLocksAfterAllCanceled", "WaitersSurviveCancelOfAnother")
	registerR("RMutexFailsButLocks",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rFailsButLocks{m} },
		"CancelDuringUnlockLosesNothing")
	registerR("RMutexIgnoresDoneContextOfOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rIgnoresDone{m} },
		"DoneContextFails")
	register("LockPerObjectOfOwner", locktest.Locks{RMutex: lockPerObject}, "ObjectsOfOneNameAreOneLock")
	register("OneObjectForAllCallers", locktest.Locks{RMutex: oneObjectForAll}, "ObjectsOfOneNameAreOneLock")
	registerR("DoAlwaysCreatesOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoNewOwner{m} },
		"Do", "DoNestsAcrossLocks")
	registerR("DoStaysLocked",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoStaysLocked{m} },
		"Do", "DoUnlocksAfterPanic")
	registerR("DoDropsError",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoDropsError{m} },
		"Do", "DoWaitCanBeCanceled")
	registerR("DoRecovers",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoRecovers{m} },
		"DoUnlocksAfterPanic")
	registerR("DoCallsWithoutLock",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoCallsAnyway{m} },
		"DoWaitCanBeCanceled")
	registerR("LockerUsesOtherOwner",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rLockerOtherOwner{m} },
		"LockerLocksForItsOwner")
	registerR("RMutexClosesInUse",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rClosesInUse{m} },
		"Close")
	registerR("RMutexNeverCloses",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rNeverCloses{m} },
		"Close")
	registerR("RMutexLeaksGoroutine",
		func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rLeaks{m} },
		"LeavesNoGoroutines")
	registerR("RMutexSurvivesItsOwner",
		func(m *interlock.FileRMutex, name string) locktest.RMutex {
			return rMarksHolder{m, marker(name + ".held")}
		},
		"KilledOwnerFreesLock")
	registerR("RMutexKeepsDeadWaiter",
		func(m *interlock.FileRMutex, name string) locktest.RMutex {
			return rMarksWaiter{m, marker(name + ".waits")}
		},
		"KilledWaiterLeavesNothing")
	registerR("RMutexIsLease",
		func(m *interlock.FileRMutex, name string) locktest.RMutex { return rLease{m, lease(name + ".pid")} },
		"StoppedOwnerKeepsLock")
}

var theOwner = interlock.NewOwner()

type rOneOwner struct{ *interlock.FileRMutex }

func (m rOneOwner) Lock(interlock.Owner)         { m.FileRMutex.Lock(theOwner) }
func (m rOneOwner) TryLock(interlock.Owner) bool { return m.FileRMutex.TryLock(theOwner) }
func (m rOneOwner) Unlock(interlock.Owner)       { m.FileRMutex.Unlock(theOwner) }
func (m rOneOwner) Depth(interlock.Owner) int    { return m.FileRMutex.Depth(theOwner) }
func (m rOneOwner) LockContext(ctx context.Context, _ interlock.Owner) error {
	return m.FileRMutex.LockContext(ctx, theOwner)
}

type rNotReentrant struct{ *interlock.FileRMutex }

func (m rNotReentrant) TryLock(o interlock.Owner) bool {
	return m.Depth(o) == 0 && m.FileRMutex.TryLock(o)
}

type rDepthAtMostOne struct{ *interlock.FileRMutex }

func (m rDepthAtMostOne) Depth(o interlock.Owner) int { return min(1, m.FileRMutex.Depth(o)) }

type rDepthBlocks struct {
	*interlock.FileRMutex
	mu sync.Mutex
}

func (m *rDepthBlocks) Lock(o interlock.Owner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.FileRMutex.Lock(o)
}
func (m *rDepthBlocks) Depth(o interlock.Owner) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.FileRMutex.Depth(o)
}

type rUnlocksAllLevels struct{ *interlock.FileRMutex }

func (m rUnlocksAllLevels) Unlock(o interlock.Owner) {
	for m.Depth(o) > 0 {
		m.FileRMutex.Unlock(o)
	}
}

func (m rUnlocksAllLevels) Locker(o interlock.Owner) sync.Locker { return rLockerOf{m, o} }

// rLockerOf is a Locker for one owner.
type rLockerOf struct {
	locktest.RMutex
	o interlock.Owner
}

func (m rLockerOf) Lock()   { m.RMutex.Lock(m.o) }
func (m rLockerOf) Unlock() { m.RMutex.Unlock(m.o) }

type rIgnoresMisuse struct{ *interlock.FileRMutex }

func (m rIgnoresMisuse) Unlock(o interlock.Owner) { ignorePanic(func() { m.FileRMutex.Unlock(o) }) }

type rUnlocksOther struct {
	*interlock.FileRMutex
	last atomic.Value
}

func (m *rUnlocksOther) Lock(o interlock.Owner) { m.FileRMutex.Lock(o); m.last.Store(o) }
func (m *rUnlocksOther) Unlock(o interlock.Owner) {
	if last, ok := m.last.Load().(interlock.Owner); ok && last != o {
		ignorePanic(func() { m.FileRMutex.Unlock(last) })
	}
	m.FileRMutex.Unlock(o)
}

type rAcceptsZeroOwner struct{ *interlock.FileRMutex }

func (m rAcceptsZeroOwner) TryLock(o interlock.Owner) bool {
	return o != interlock.Owner{} && m.FileRMutex.TryLock(o)
}

// rOneWaiterPerOwner panics when a second goroutine of an owner waits.
type rOneWaiterPerOwner struct {
	*interlock.FileRMutex
	waiting sync.Map
}

func (m *rOneWaiterPerOwner) Lock(o interlock.Owner) {
	if _, ok := m.waiting.LoadOrStore(o, true); ok && m.Depth(o) == 0 {
		panic("the owner already waits")
	}
	m.FileRMutex.Lock(o)
	m.waiting.Delete(o)
}

// rCancelsTogether cancels all waiters when one is canceled.
type rCancelsTogether struct {
	*interlock.FileRMutex
	mu      sync.Mutex
	cancels []context.CancelFunc
}

func (m *rCancelsTogether) LockContext(ctx context.Context, o interlock.Owner) error {
	ctx, cancel := context.WithCancel(ctx)
	m.mu.Lock()
	m.cancels = append(m.cancels, cancel)
	m.mu.Unlock()
	err := m.FileRMutex.LockContext(ctx, o)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, cancel := range m.cancels {
		if err != nil {
			cancel()
		}
	}
	return err
}

// rLocksAfterCancel locks after the call was canceled and returned.
type rLocksAfterCancel struct{ *interlock.FileRMutex }

func (m rLocksAfterCancel) LockContext(ctx context.Context, o interlock.Owner) error {
	err := m.FileRMutex.LockContext(ctx, o)
	if err != nil {
		go ignorePanic(func() { m.Lock(o) })
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type rIgnoresCancel struct{ *interlock.FileRMutex }

func (m rIgnoresCancel) LockContext(ctx context.Context, o interlock.Owner) error {
	if ctx.Err() == nil {
		m.Lock(o)
	}
	return ctx.Err()
}

// rFailsButLocks returns the error of a context that ends just after the call
// got the lock, and keeps the lock.
type rFailsButLocks struct{ *interlock.FileRMutex }

func (m rFailsButLocks) LockContext(ctx context.Context, o interlock.Owner) error {
	if err := m.FileRMutex.LockContext(ctx, o); err != nil {
		return err
	}
	time.Sleep(100 * time.Microsecond)
	return ctx.Err()
}

type rIgnoresDone struct{ *interlock.FileRMutex }

func (m rIgnoresDone) LockContext(ctx context.Context, o interlock.Owner) error {
	if m.Depth(o) > 0 {
		ctx = ignoreDone(ctx)
	}
	return m.FileRMutex.LockContext(ctx, o)
}

// lockPerObject opens the lock file by a new hard link, so that each object is
// a separate lock for an owner.
func lockPerObject(name string) (locktest.RMutex, error) {
	if f, err := os.OpenFile(name, os.O_CREATE, 0o600); err == nil {
		f.Close()
	}
	link := name + interlock.Must(os.CreateTemp("", "link")).Name()[len(os.TempDir())+1:]
	if err := os.Link(name, link); err != nil {
		return nil, err
	}
	return files.RMutex(link)
}

// oneObject has the object that oneObjectForAll returns, by name.
var oneObject sync.Map

func oneObjectForAll(name string) (locktest.RMutex, error) {
	m, err := files.RMutex(name)
	first, _ := oneObject.LoadOrStore(name, m)
	return rNeverCloses{first.(*interlock.FileRMutex)}, err
}

type rDoNewOwner struct{ *interlock.FileRMutex }

func (m rDoNewOwner) Do(ctx context.Context, f func(ctx context.Context) error) error {
	return m.FileRMutex.Do(interlock.ContextWithOwner(ctx, interlock.NewOwner()), f)
}

// rDoStaysLocked unlocks too few times when the function fails or panics.
type rDoStaysLocked struct{ *interlock.FileRMutex }

func (m rDoStaysLocked) Do(ctx context.Context, f func(ctx context.Context) error) error {
	return m.FileRMutex.Do(ctx, func(ctx context.Context) error {
		o, _ := interlock.OwnerFromContext(ctx)
		m.Lock(o)
		err := f(ctx)
		if err == nil {
			m.Unlock(o)
		}
		return err
	})
}

type rDoDropsError struct{ *interlock.FileRMutex }

func (m rDoDropsError) Do(ctx context.Context, f func(ctx context.Context) error) error {
	m.FileRMutex.Do(ctx, f)
	return nil
}

type rDoRecovers struct{ *interlock.FileRMutex }

func (m rDoRecovers) Do(ctx context.Context, f func(ctx context.Context) error) (err error) {
	defer func() { recover() }()
	return m.FileRMutex.Do(ctx, f)
}

type rDoCallsAnyway struct{ *interlock.FileRMutex }

func (m rDoCallsAnyway) Do(ctx context.Context, f func(ctx context.Context) error) error {
	err := m.FileRMutex.Do(ctx, f)
	if err != nil && err == ctx.Err() {
		f(ctx)
	}
	return err
}

type rLockerOtherOwner struct{ *interlock.FileRMutex }

func (m rLockerOtherOwner) Locker(interlock.Owner) sync.Locker { return m.FileRMutex.Locker(theOwner) }

type rClosesInUse struct{ *interlock.FileRMutex }

func (m rClosesInUse) Close() error { m.FileRMutex.Close(); return nil }

type rNeverCloses struct{ *interlock.FileRMutex }

func (m rNeverCloses) Close() error { return nil }

type rLeaks struct{ *interlock.FileRMutex }

func (m rLeaks) LockContext(ctx context.Context, o interlock.Owner) error {
	go func() { select {} }()
	return m.FileRMutex.LockContext(ctx, o)
}

// rMarksHolder stays locked when its owner is killed.
type rMarksHolder struct {
	*interlock.FileRMutex
	held marker
}

func (m rMarksHolder) Lock(o interlock.Owner) {
	m.FileRMutex.Lock(o)
	if m.Depth(o) == 1 {
		m.held.set(context.Background())
	}
}
func (m rMarksHolder) Unlock(o interlock.Owner) {
	if m.Depth(o) == 1 {
		m.held.clear()
	}
	m.FileRMutex.Unlock(o)
}

// rMarksWaiter keeps the place of a waiter that is killed.
type rMarksWaiter struct {
	*interlock.FileRMutex
	waits marker
}

func (m rMarksWaiter) LockContext(ctx context.Context, o interlock.Owner) error {
	if err := m.waits.set(ctx); err != nil {
		return err
	}
	defer m.waits.clear()
	return m.FileRMutex.LockContext(ctx, o)
}
func (m rMarksWaiter) Lock(o interlock.Owner) {
	if err := m.LockContext(context.Background(), o); err != nil {
		panic(errors.New("the lock was not acquired"))
	}
}

// rLease loses the lock while its owner is stopped.
type rLease struct {
	*interlock.FileRMutex
	held lease
}

func (m rLease) Lock(o interlock.Owner) {
	m.held.wait(func(ctx context.Context) error { return m.LockContext(ctx, o) })
}
func (m rLease) Unlock(o interlock.Owner) { ignorePanic(func() { m.FileRMutex.Unlock(o) }) }
