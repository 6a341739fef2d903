package locktest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

func init() {
	const (
		canceledWriter = "CanceledWriterLeavesNothing"
		canceledReader = "CanceledReaderLeavesNothing"
		doneFree       = "DoneContextFailsOnFreeLock"
		doneHeld       = "DoneContextFailsOnHeldLock"
		overtaken      = "TryDoesNotOvertakeWriter"
		misuse         = "MisusePanicsAndChangesNothing"
	)
	registerRW("LockContextIgnoresDoneContext",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwIgnoresDone{m} },
		doneFree)
	registerRW("TryRLockContextIgnoresDoneContext",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwTryIgnoresDone{m} },
		doneFree)
	registerRW("TryLockContextChecksContextLast",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwChecksContextLast{m} },
		doneHeld)
	registerRW("RWMutexLocksAfterCancel",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwLocksAfterCancel{m} },
		canceledWriter, canceledReader, "CanceledWriterLetsReadersPass", "ExpiredWaitLeavesNothing",
		"CanceledReaderBeforeWriterLeavesNothing", "CanceledWriterBeforeReaderLeavesNothing")
	registerRW("RWMutexIgnoresCancel",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwIgnoresCancel{m} },
		canceledWriter, "ConcurrentCancelsAreIndependent", "ExpiredWaitLeavesNothing")
	registerRW("RWMutexWrapsContextError",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwWrapsError{m} },
		canceledWriter, doneFree)
	registerRW("RWMutexUnlocksOnCancel",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwUnlocksOnCancel{m} },
		"ExclusiveDespiteCancels")
	registerRW("RWMutexFailsButLocks",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwFailsButLocks{m} },
		"CancelDuringUnlockLosesNothing")
	registerRW("RWMutexPolls",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwPolls{m, time.Millisecond} },
		"WriterNotStarvedByReaders", "WriterNotStarvedByReadersOfOneProcess", "WaitingWriterStopsNewReaders", overtaken, "WritersOfOneObjectServedInOrder")
	registerRW("RWMutexPollsSlowly",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwPolls{m, 100 * time.Millisecond} },
		"WriterNotStarvedByWriter")
	registerRW("RWMutexNeverLeavesProcess",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return &rwCohort{FileRWMutex: m} },
		"WriterNotStarvedByBusyProcess")
	registerRW("TryLockOvertakes",
		func(m *interlock.FileRWMutex, name string) locktest.RWMutex {
			return &rwOvertakes{FileRWMutex: m, name: name}
		},
		overtaken)
	registerRW("TryLockBlocks",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwTryBlocks{m} },
		"WriterExcludesOthers")
	registerRW("TryLockContextHidesErrLocked",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwTryOtherError{m} },
		"WriterExcludesOthers", overtaken)
	registerRW("ReadersExcludeEachOther",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwReadersExclude{m} },
		"ReadersShareUntilLastUnlocks")
	registerRW("RUnlockUnlocksAllReaders",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwUnlocksAllReaders{m} },
		"ReadersShareUntilLastUnlocks")
	registerRW("RWMutexIgnoresMisuse",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwIgnoresMisuse{m} },
		misuse)
	registerRW("UnlockUnlocksReader",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwUnlocksReader{m} },
		misuse)
	registerRW("RLockerLocksForWriting",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwRLockerWrites{m} },
		"RLockerLocksForReading")
	registerRW("UnlockOnlyByLockingGoroutine",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return &rwChecksGoroutine{FileRWMutex: m} },
		"UnlockFromAnotherGoroutine")
	registerRW("RWMutexClosesInUse",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwClosesInUse{m} },
		"Close")
	registerRW("RWMutexCloseHangsRemotely",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwCloseHangsRemotely{m} },
		"DifferentNamesAreDifferentLocks")
	registerRW("RWMutexCloseWaits",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwCloseWaits{m} },
		"Close")
	registerRW("RWMutexMisuseHangs",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwMisuseHangs{m} },
		misuse)
	registerRW("RWMutexNeverCloses",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwNeverCloses{m} },
		"Close")
	registerRW("RWMutexLeaksGoroutine",
		func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwLeaks{m} },
		"LeavesNoGoroutines")
	registerRW("RWMutexSurvivesItsHolder",
		func(m *interlock.FileRWMutex, name string) locktest.RWMutex {
			return rwMarksHolder{m, marker(name + ".held")}
		},
		"KilledWriterFreesLock", "KilledReaderFreesLock", "KilledAnytimeFreesLock")
	registerRW("RWMutexKeepsDeadWaiter",
		func(m *interlock.FileRWMutex, name string) locktest.RWMutex {
			return rwMarksWaiter{m, marker(name + ".waits")}
		},
		"KilledWaiterLeavesNothing")
	registerRW("RWMutexIsLease",
		func(m *interlock.FileRWMutex, name string) locktest.RWMutex { return rwLease{m, lease(name + ".pid")} },
		"StoppedHolderKeepsLock")
}

type rwIgnoresDone struct{ *interlock.FileRWMutex }

func (m rwIgnoresDone) LockContext(ctx context.Context) error {
	return m.FileRWMutex.LockContext(ignoreDone(ctx))
}

type rwTryIgnoresDone struct{ *interlock.FileRWMutex }

func (m rwTryIgnoresDone) TryRLockContext(ctx context.Context) error {
	return m.FileRWMutex.TryRLockContext(ignoreDone(ctx))
}

type rwChecksContextLast struct{ *interlock.FileRWMutex }

func (m rwChecksContextLast) TryLockContext(ctx context.Context) error {
	if !m.TryLock() {
		return interlock.ErrLocked
	}
	if ctx.Err() != nil {
		m.Unlock()
	}
	return ctx.Err()
}

// rwLocksAfterCancel locks after the call was canceled and returned.
type rwLocksAfterCancel struct{ *interlock.FileRWMutex }

func (m rwLocksAfterCancel) LockContext(ctx context.Context) error {
	err := m.FileRWMutex.LockContext(ctx)
	if err != nil {
		go ignorePanic(m.Lock)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (m rwLocksAfterCancel) RLockContext(ctx context.Context) error {
	err := m.FileRWMutex.RLockContext(ctx)
	if err != nil {
		go ignorePanic(m.RLock)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type rwIgnoresCancel struct{ *interlock.FileRWMutex }

func (m rwIgnoresCancel) LockContext(ctx context.Context) error {
	if ctx.Err() == nil {
		m.Lock()
	}
	return ctx.Err()
}

type rwWrapsError struct{ *interlock.FileRWMutex }

func (m rwWrapsError) LockContext(ctx context.Context) error {
	if err := m.FileRWMutex.LockContext(ctx); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

type rwUnlocksOnCancel struct{ *interlock.FileRWMutex }

func (m rwUnlocksOnCancel) LockContext(ctx context.Context) error {
	err := m.FileRWMutex.LockContext(ctx)
	if err != nil {
		ignorePanic(m.Unlock)
	}
	return err
}

// rwFailsButLocks returns the error of a context that ends just after the call
// got the lock, and keeps the lock.
type rwFailsButLocks struct{ *interlock.FileRWMutex }

func (m rwFailsButLocks) LockContext(ctx context.Context) error {
	if err := m.FileRWMutex.LockContext(ctx); err != nil {
		return err
	}
	time.Sleep(100 * time.Microsecond)
	return ctx.Err()
}

type rwPolls struct {
	*interlock.FileRWMutex
	pause time.Duration
}

func (m rwPolls) poll(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if !errors.Is(err, interlock.ErrLocked) {
			return err
		}
		time.Sleep(m.pause)
	}
}

func (m rwPolls) LockContext(ctx context.Context) error  { return m.poll(ctx, m.TryLockContext) }
func (m rwPolls) RLockContext(ctx context.Context) error { return m.poll(ctx, m.TryRLockContext) }
func (m rwPolls) Lock()                                  { m.LockContext(context.Background()) }
func (m rwPolls) RLock()                                 { m.RLockContext(context.Background()) }

// rwCohort passes the lock from goroutine to goroutine while any goroutine of
// the process waits. Other processes starve.
type rwCohort struct {
	*interlock.FileRWMutex
	mu      sync.Mutex
	waiting atomic.Int32
	held    bool
}

func (m *rwCohort) Lock() {
	m.waiting.Add(1)
	m.mu.Lock()
	m.waiting.Add(-1)
	if !m.held {
		m.FileRWMutex.Lock()
	}
	m.held = true
}

func (m *rwCohort) TryLock() bool {
	if !m.mu.TryLock() {
		return false
	}
	if m.held = m.held || m.FileRWMutex.TryLock(); !m.held {
		m.mu.Unlock()
	}
	return m.held
}

func (m *rwCohort) LockContext(ctx context.Context) error {
	if ctx.Err() == nil {
		m.Lock()
	}
	return ctx.Err()
}

func (m *rwCohort) Unlock() {
	if m.waiting.Load() == 0 {
		m.held = false
		m.FileRWMutex.Unlock()
	}
	m.mu.Unlock()
}

// rwOvertakes has a TryLock that does not know about waiters.
type rwOvertakes struct {
	*interlock.FileRWMutex
	name string
	mu   sync.Mutex
	file *os.File
}

func (m *rwOvertakes) TryLock() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := os.OpenFile(m.name, os.O_RDWR, 0)
	if err == nil {
		err = interlock.TryLock(f)
	}
	if err == nil {
		m.file = f
	}
	return err == nil
}

func (m *rwOvertakes) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file != nil {
		m.file.Close()
		m.file = nil
		return
	}
	m.FileRWMutex.Unlock()
}

type rwTryBlocks struct{ *interlock.FileRWMutex }

func (m rwTryBlocks) TryLock() bool { m.Lock(); return true }

type rwTryOtherError struct{ *interlock.FileRWMutex }

func (m rwTryOtherError) TryLockContext(ctx context.Context) error {
	err := m.FileRWMutex.TryLockContext(ctx)
	if errors.Is(err, interlock.ErrLocked) {
		err = io.EOF
	}
	return err
}

type rwReadersExclude struct{ *interlock.FileRWMutex }

func (m rwReadersExclude) RLock()         { m.Lock() }
func (m rwReadersExclude) TryRLock() bool { return m.TryLock() }
func (m rwReadersExclude) RUnlock()       { m.Unlock() }

type rwUnlocksAllReaders struct{ *interlock.FileRWMutex }

func (m rwUnlocksAllReaders) RUnlock() {
	ignorePanic(func() {
		for {
			m.FileRWMutex.RUnlock()
		}
	})
}

type rwIgnoresMisuse struct{ *interlock.FileRWMutex }

func (m rwIgnoresMisuse) Unlock() { ignorePanic(m.FileRWMutex.Unlock) }

// rwUnlocksReader unlocks a reader where Unlock should panic.
type rwUnlocksReader struct{ *interlock.FileRWMutex }

func (m rwUnlocksReader) Unlock() {
	ignorePanic(m.RUnlock)
	m.FileRWMutex.Unlock()
}

type rwRLockerWrites struct{ *interlock.FileRWMutex }

func (m rwRLockerWrites) RLocker() sync.Locker { return m.FileRWMutex }

type rwChecksGoroutine struct {
	*interlock.FileRWMutex
	by atomic.Value
}

func goroutine() string {
	buf := make([]byte, 64)
	return strings.Fields(string(buf[:runtime.Stack(buf, false)]))[1]
}

func (m *rwChecksGoroutine) Lock() { m.FileRWMutex.Lock(); m.by.Store(goroutine()) }
func (m *rwChecksGoroutine) Unlock() {
	if m.by.Load() != goroutine() {
		panic("unlocked by another goroutine than the one that locked")
	}
	m.FileRWMutex.Unlock()
}

type rwClosesInUse struct{ *interlock.FileRWMutex }

func (m rwClosesInUse) Close() error { m.FileRWMutex.Close(); return nil }

type rwCloseHangsRemotely struct{ *interlock.FileRWMutex }

func (m rwCloseHangsRemotely) Close() error {
	if inRemoteProcess() {
		select {}
	}
	return m.FileRWMutex.Close()
}

type rwCloseWaits struct{ *interlock.FileRWMutex }

func (m rwCloseWaits) Close() error {
	for m.FileRWMutex.Close() != nil {
		time.Sleep(time.Millisecond)
	}
	return nil
}

// rwMisuseHangs blocks where it should panic.
type rwMisuseHangs struct{ *interlock.FileRWMutex }

func (m rwMisuseHangs) Unlock() {
	defer func() {
		if recover() != nil {
			select {}
		}
	}()
	m.FileRWMutex.Unlock()
}

type rwNeverCloses struct{ *interlock.FileRWMutex }

func (m rwNeverCloses) Close() error { return nil }

type rwLeaks struct{ *interlock.FileRWMutex }

func (m rwLeaks) LockContext(ctx context.Context) error {
	go func() { select {} }()
	return m.FileRWMutex.LockContext(ctx)
}

// rwMarksHolder stays locked when its holder is killed.
type rwMarksHolder struct {
	*interlock.FileRWMutex
	held marker
}

func (m rwMarksHolder) lock(lock func()) {
	lock()
	m.held.set(context.Background())
}
func (m rwMarksHolder) unlock(unlock func()) {
	m.held.clear()
	unlock()
}
func (m rwMarksHolder) Lock()    { m.lock(m.FileRWMutex.Lock) }
func (m rwMarksHolder) RLock()   { m.lock(m.FileRWMutex.RLock) }
func (m rwMarksHolder) Unlock()  { m.unlock(m.FileRWMutex.Unlock) }
func (m rwMarksHolder) RUnlock() { m.unlock(m.FileRWMutex.RUnlock) }

func (m rwMarksHolder) LockContext(ctx context.Context) error {
	err := m.FileRWMutex.LockContext(ctx)
	if err == nil {
		m.held.set(context.Background())
	}
	return err
}

// rwMarksWaiter keeps the place of a waiter that is killed.
type rwMarksWaiter struct {
	*interlock.FileRWMutex
	waits marker
}

func (m rwMarksWaiter) LockContext(ctx context.Context) error {
	if err := m.waits.set(ctx); err != nil {
		return err
	}
	defer m.waits.clear()
	return m.FileRWMutex.LockContext(ctx)
}
func (m rwMarksWaiter) Lock() { m.LockContext(context.Background()) }

// rwLease loses the lock while its holder is stopped.
type rwLease struct {
	*interlock.FileRWMutex
	held lease
}

func (m rwLease) Lock()   { m.held.wait(m.LockContext) }
func (m rwLease) Unlock() { ignorePanic(m.FileRWMutex.Unlock) }
