package locktest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

func init() {
	const (
		served         = "WaitersOfOneObjectServedInOrder"
		overtaken      = "TryDoesNotOvertakeWaiter"
		smaller        = "SmallerAcquireDoesNotOvertake"
		largeStarved   = "LargeAcquireNotStarvedBySmallOnes"
		processStarved = "WaiterNotStarvedByBusyProcess"
		deadlock       = "AcquiresOfAllUnitsDoNotDeadlock"
		inUse          = "NeverExceedsSize"
		oversized      = "OversizedAcquireBlocksOnlyItself"
		freesUnits     = "CanceledWaitFreesItsUnits"
		misuse         = "MisusePanicsAndChangesNothing"
		sizeShared     = "SizeIsSharedByAllObjects"
		acquireZero    = "AcquireZeroWaitsInLine"
		doneContext    = "DoneContextFails"
		killedHolder   = "KilledHolderFreesUnits"
		killedFirst    = "KilledFirstWaiterLeavesNothing"
	)
	register("SemaphoreHasOneUnitMore", locktest.Locks{Semaphore: oneUnitMore},
		inUse, "AcquireIsAllOrNothing", "SizeZero")
	registerSem("SemaphorePolls",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semPolls{s} },
		served, overtaken, smaller, largeStarved)
	registerSem("UnitsAcquiredOneByOne",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semOneByOne{s} },
		deadlock)
	registerSem("TryAcquireKeepsUnits",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semTryKeepsUnits{s} },
		"AcquireIsAllOrNothing")
	registerSem("CanceledWaitKeepsUnit",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semKeepsUnit{s} },
		freesUnits, "ExpiredWaitLeavesNothing", "CanceledWaiterLeavesLine")
	registerSem("SemaphoreIgnoresCancel",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semIgnoresCancel{s} },
		freesUnits, "CanceledWaiterLeavesLine", "ExpiredWaitLeavesNothing")
	registerSem("SemaphoreFailsButAcquires",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semFailsButAcquires{s} },
		"CancelDuringReleaseLosesNothing")
	registerSem("SemaphoreWrapsContextError",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semWrapsError{s} },
		doneContext, "ExpiredWaitLeavesNothing")
	registerSem("SemaphoreIgnoresMisuse",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semIgnoresMisuse{s} },
		misuse)
	registerSem("SemaphoreReleasesAllOnMisuse",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore {
			return &semReleasesAll{FileSemaphore: s}
		},
		misuse)
	registerSem("AcquireAcceptsNegative",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semAcceptsNegative{s} },
		misuse)
	registerSem("UnitsMustBeReleasedTogether",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore {
			return &semUnitsBelongTogether{FileSemaphore: s}
		},
		"UnitsAreInterchangeable")
	registerSem("OversizedAcquireFails",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semRefusesOversized{s} },
		oversized, "SizeZero")
	registerSem("OversizedAcquireBlocksAll",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semOversizedBlocksAll{s} },
		oversized)
	registerSem("SemaphoreIgnoresDoneContext",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semIgnoresDone{s} },
		doneContext)
	registerSem("AcquireZeroAtOnce",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semZeroAtOnce{s} },
		acquireZero, doneContext)
	register("SemaphorePerSize", locktest.Locks{Semaphore: semaphorePerSize}, sizeShared)
	register("ErrorWithoutSizes", locktest.Locks{Semaphore: errorWithoutSizes}, sizeShared)
	register("ErrorWithoutSizeInUse", locktest.Locks{Semaphore: errorWithoutOldSize}, sizeShared)
	registerSem("WrongSizeRemotely",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semWrongSizeRemotely{s} },
		"AcquireIsAllOrNothing", "UnusedSemaphoreAcceptsNewSize")
	register("FirstSizeForever", locktest.Locks{Semaphore: firstSizeForever}, "UnusedSemaphoreAcceptsNewSize")
	registerSem("WrongSize",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semWrongSize{s} },
		"AcquireIsAllOrNothing", "UnusedSemaphoreAcceptsNewSize")
	registerSem("SemaphoreClosesInUse",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semClosesInUse{s} },
		"Close")
	registerSem("SemaphoreNeverCloses",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semNeverCloses{s} },
		"Close")
	registerSem("SemaphoreLeaksGoroutine",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semLeaks{s} },
		"LeavesNoGoroutines")
	registerSem("SemaphoreCountsInFile",
		func(s *interlock.FileSemaphore, name string) locktest.Semaphore {
			return semCountsInFile{s, interlock.Must(interlock.NewFileRWMutex(name + ".count"))}
		},
		killedHolder, "KilledAnytimeFreesUnits", killedFirst)
	registerSem("SemaphoreKeepsDeadWaiter",
		func(s *interlock.FileSemaphore, name string) locktest.Semaphore {
			return semMarksWaiter{s, marker(name + ".waits")}
		},
		killedFirst)
	registerSem("SemaphoreIsLease",
		func(s *interlock.FileSemaphore, name string) locktest.Semaphore {
			return semLease{s, lease(name + ".pid")}
		},
		"StoppedHolderKeepsUnits")
	registerSem("SemaphoreNeverLeavesProcess",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return &semCohort{FileSemaphore: s} },
		processStarved)
	registerSem("CanceledWaiterStaysInLine",
		func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semStaysInLine{s} },
		freesUnits)
}

// A biggerSemaphore has more units than Size returns.
type biggerSemaphore struct {
	*interlock.FileSemaphore
	size int64
}

func (s biggerSemaphore) Size() int64 { return s.size }

func oneUnitMore(name string, size int64) (locktest.Semaphore, error) {
	s, err := interlock.NewFileSemaphore(name, size+1)
	return biggerSemaphore{s, size}, err
}

type semPolls struct{ *interlock.FileSemaphore }

func (s semPolls) Acquire(ctx context.Context, n int64) error {
	for ctx.Err() == nil {
		if s.TryAcquire(n) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

type semOneByOne struct{ *interlock.FileSemaphore }

func (s semOneByOne) Acquire(ctx context.Context, n int64) error {
	for range n {
		if err := s.FileSemaphore.Acquire(ctx, 1); err != nil {
			return err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}

type semTryKeepsUnits struct{ *interlock.FileSemaphore }

func (s semTryKeepsUnits) TryAcquire(n int64) bool {
	for range n {
		if !s.FileSemaphore.TryAcquire(1) {
			return false
		}
	}
	return true
}

// semKeepsUnit keeps a unit when it is canceled.
type semKeepsUnit struct{ *interlock.FileSemaphore }

func (s semKeepsUnit) Acquire(ctx context.Context, n int64) error {
	err := s.FileSemaphore.Acquire(ctx, n)
	if err != nil {
		go s.FileSemaphore.Acquire(context.Background(), 1)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// semStaysInLine stays in line when it is canceled.
type semStaysInLine struct{ *interlock.FileSemaphore }

func (s semStaysInLine) Acquire(ctx context.Context, n int64) error {
	err := s.FileSemaphore.Acquire(ctx, n)
	if err != nil {
		go s.FileSemaphore.Acquire(context.Background(), n)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type semIgnoresCancel struct{ *interlock.FileSemaphore }

func (s semIgnoresCancel) Acquire(ctx context.Context, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.FileSemaphore.Acquire(context.Background(), n)
}

// semFailsButAcquires returns the error of a context that ends just after the
// call got its units, and keeps the units.
type semFailsButAcquires struct{ *interlock.FileSemaphore }

func (s semFailsButAcquires) Acquire(ctx context.Context, n int64) error {
	if err := s.FileSemaphore.Acquire(ctx, n); err != nil {
		return err
	}
	time.Sleep(100 * time.Microsecond)
	return ctx.Err()
}

type semWrapsError struct{ *interlock.FileSemaphore }

func (s semWrapsError) Acquire(ctx context.Context, n int64) error {
	if err := s.FileSemaphore.Acquire(ctx, n); err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	return nil
}

type semIgnoresMisuse struct{ *interlock.FileSemaphore }

func (s semIgnoresMisuse) Release(n int64) { ignorePanic(func() { s.FileSemaphore.Release(n) }) }

// semReleasesAll releases all units where Release should panic.
type semReleasesAll struct {
	*interlock.FileSemaphore
	used atomic.Int64
}

func (s *semReleasesAll) Acquire(ctx context.Context, n int64) error {
	err := s.FileSemaphore.Acquire(ctx, n)
	if err == nil {
		s.used.Add(n)
	}
	return err
}
func (s *semReleasesAll) Release(n int64) {
	if used := s.used.Load(); n > used {
		s.FileSemaphore.Release(used)
		s.used.Store(0)
	} else {
		s.used.Add(-n)
	}
	s.FileSemaphore.Release(n)
}

type semAcceptsNegative struct{ *interlock.FileSemaphore }

func (s semAcceptsNegative) Acquire(ctx context.Context, n int64) error {
	return s.FileSemaphore.Acquire(ctx, max(n, 0))
}

// semUnitsBelongTogether panics unless the units of one call of Acquire are
// released in one call of Release.
type semUnitsBelongTogether struct {
	*interlock.FileSemaphore
	had sync.Map
}

func (s *semUnitsBelongTogether) Acquire(ctx context.Context, n int64) error {
	s.had.Store(n, true)
	return s.FileSemaphore.Acquire(ctx, n)
}
func (s *semUnitsBelongTogether) Release(n int64) {
	if _, ok := s.had.LoadAndDelete(n); !ok {
		panic("released another number of units than were acquired")
	}
	s.FileSemaphore.Release(n)
}

type semRefusesOversized struct{ *interlock.FileSemaphore }

func (s semRefusesOversized) Acquire(ctx context.Context, n int64) error {
	if n > s.Size() {
		return fs.ErrInvalid
	}
	return s.FileSemaphore.Acquire(ctx, n)
}

// semOversizedBlocksAll lets an acquisition of too many units block all others.
type semOversizedBlocksAll struct{ *interlock.FileSemaphore }

func (s semOversizedBlocksAll) Acquire(ctx context.Context, n int64) error {
	if n <= s.Size() {
		return s.FileSemaphore.Acquire(ctx, n)
	}
	if s.FileSemaphore.Acquire(ctx, s.Size()) == nil {
		<-ctx.Done()
		s.Release(s.Size())
	}
	return ctx.Err()
}

type semIgnoresDone struct{ *interlock.FileSemaphore }

func (s semIgnoresDone) Acquire(ctx context.Context, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	return s.FileSemaphore.Acquire(ctx, n)
}

type semZeroAtOnce struct{ *interlock.FileSemaphore }

func (s semZeroAtOnce) Acquire(ctx context.Context, n int64) error {
	if n == 0 {
		return nil
	}
	return s.FileSemaphore.Acquire(ctx, n)
}

func semaphorePerSize(name string, size int64) (locktest.Semaphore, error) {
	return files.Semaphore(fmt.Sprint(name, size), size)
}

func errorWithoutSizes(name string, size int64) (locktest.Semaphore, error) {
	s, err := files.Semaphore(name, size)
	if err != nil {
		return nil, errors.New("the semaphore is in use")
	}
	return s, nil
}

func errorWithoutOldSize(name string, size int64) (locktest.Semaphore, error) {
	s, err := files.Semaphore(name, size)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("the size is not %d", size)}
	}
	return s, nil
}

func firstSizeForever(name string, size int64) (locktest.Semaphore, error) {
	first, err := os.ReadFile(name + ".size")
	if err != nil {
		first = strconv.AppendInt(nil, size, 10)
		os.WriteFile(name+".size", first, 0o600)
	}
	if string(first) != fmt.Sprint(size) {
		return nil, fmt.Errorf("the size is %s, not %d", first, size)
	}
	return files.Semaphore(name, size)
}

type semWrongSize struct{ *interlock.FileSemaphore }

func (s semWrongSize) Size() int64 { return 7 }

type semWrongSizeRemotely struct{ *interlock.FileSemaphore }

func (s semWrongSizeRemotely) Size() int64 {
	if inRemoteProcess() {
		return 7
	}
	return s.FileSemaphore.Size()
}

type semClosesInUse struct{ *interlock.FileSemaphore }

func (s semClosesInUse) Close() error { s.FileSemaphore.Close(); return nil }

type semNeverCloses struct{ *interlock.FileSemaphore }

func (s semNeverCloses) Close() error { return nil }

type semLeaks struct{ *interlock.FileSemaphore }

func (s semLeaks) Acquire(ctx context.Context, n int64) error {
	go func() { select {} }()
	return s.FileSemaphore.Acquire(ctx, n)
}

// semCountsInFile counts the units in use in a file, so that a killed process
// never frees its units.
type semCountsInFile struct {
	*interlock.FileSemaphore
	count *interlock.FileRWMutex
}

func (s semCountsInFile) add(n int64) bool {
	s.count.Lock()
	defer s.count.Unlock()
	data, _ := os.ReadFile(s.count.Path())
	used, _ := strconv.ParseInt(string(data), 10, 64)
	if used += n; used > s.Size() {
		return false
	}
	os.WriteFile(s.count.Path(), strconv.AppendInt(nil, used, 10), 0o600)
	return true
}

func (s semCountsInFile) TryAcquire(n int64) bool { return s.add(n) }
func (s semCountsInFile) Release(n int64)         { s.add(-n) }
func (s semCountsInFile) Acquire(ctx context.Context, n int64) error {
	for ctx.Err() == nil {
		if s.add(n) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

// semMarksWaiter keeps the place of a waiter that is killed.
type semMarksWaiter struct {
	*interlock.FileSemaphore
	waits marker
}

func (s semMarksWaiter) Acquire(ctx context.Context, n int64) error {
	if err := s.waits.set(ctx); err != nil {
		return err
	}
	defer s.waits.clear()
	return s.FileSemaphore.Acquire(ctx, n)
}

// semLease loses its units while their holder is stopped.
type semLease struct {
	*interlock.FileSemaphore
	held lease
}

func (s semLease) Acquire(ctx context.Context, n int64) error {
	s.held.wait(func(ctx context.Context) error { return s.FileSemaphore.Acquire(ctx, n) })
	return nil
}
func (s semLease) Release(n int64) { ignorePanic(func() { s.FileSemaphore.Release(n) }) }

// semCohort passes the unit from goroutine to goroutine while any goroutine of
// the process waits. Other processes starve. It works only for size 1.
type semCohort struct {
	*interlock.FileSemaphore
	mu      sync.Mutex
	waiting atomic.Int32
	held    bool
}

func (s *semCohort) Acquire(ctx context.Context, n int64) error {
	s.waiting.Add(1)
	s.mu.Lock()
	s.waiting.Add(-1)
	if !s.held {
		s.FileSemaphore.Acquire(context.Background(), n)
	}
	s.held = true
	if err := ctx.Err(); err != nil {
		s.Release(n)
		return err
	}
	return nil
}

func (s *semCohort) Release(n int64) {
	if s.waiting.Load() == 0 {
		s.held = false
		s.FileSemaphore.Release(n)
	}
	s.mu.Unlock()
}
