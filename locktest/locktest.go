// Package locktest tests locks between processes. It accepts every
// implementation that has the methods of [interlock.FileRWMutex],
// [interlock.FileRMutex] or [interlock.FileSemaphore], with or without a file
// behind it. The tests check the guarantees in the documentation of those types.
//
// A test of an implementation looks like this:
//
//	var locks = locktest.Locks{
//		RWMutex: func(name string) (locktest.RWMutex, error) { return mylock.New(name) },
//	}
//
//	func TestMain(m *testing.M) {
//		locktest.Main(locks)
//		os.Exit(m.Run())
//	}
//
//	func TestLocks(t *testing.T) { locktest.Test(t, locks) }
//
// The tests run the test binary again, as other processes, and kill some of
// them. A test waits up to a minute for an event that must happen. To check
// that an event does not happen, it watches for 50 milliseconds. So a correct
// lock does not fail on a slow machine, but the tests of a broken lock may take
// long.
//
// The tests do not cover what only file locks have:
//
//   - the method Path and the type Group,
//   - options,
//   - the text of errors, except that a semaphore's errors name both sizes,
//   - permissions,
//   - lock files that are removed, renamed or replaced.
package locktest

import (
	"context"
	"sync"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

// RWMutex has the methods of [interlock.FileRWMutex] that are tested.
type RWMutex interface {
	sync.Locker
	TryLock() bool
	LockContext(ctx context.Context) error
	TryLockContext(ctx context.Context) error
	RLock()
	TryRLock() bool
	RLockContext(ctx context.Context) error
	TryRLockContext(ctx context.Context) error
	RUnlock()
	RLocker() sync.Locker
	Close() error
}

// RMutex has the methods of [interlock.FileRMutex] that are tested.
type RMutex interface {
	Lock(o interlock.Owner)
	TryLock(o interlock.Owner) bool
	LockContext(ctx context.Context, o interlock.Owner) error
	TryLockContext(ctx context.Context, o interlock.Owner) error
	Unlock(o interlock.Owner)
	Depth(o interlock.Owner) int
	Locker(o interlock.Owner) sync.Locker
	Do(ctx context.Context, f func(ctx context.Context) error) error
	Close() error
}

// Semaphore has the methods of [interlock.FileSemaphore] that are tested.
type Semaphore interface {
	Acquire(ctx context.Context, n int64) error
	TryAcquire(n int64) bool
	Release(n int64)
	Size() int64
	Close() error
}

// Locks is an implementation. Each field opens a lock of one kind; a field is
// nil if the implementation does not have that kind.
//
// The name of a lock is an absolute path in a temporary directory of the test.
// The directory exists. A name stands for one lock in all processes and all
// calls. The tests do not create or read a file at that path, so an
// implementation without files can use the path as a plain name.
//
// When a process is killed, the implementation has less than a minute to free
// everything that the process held and to remove it from the line of waiters.
type Locks struct {
	RWMutex   func(name string) (RWMutex, error)
	RMutex    func(name string) (RMutex, error)
	Semaphore func(name string, size int64) (Semaphore, error)
}

// Main must be the first call in TestMain. In the process that runs the tests,
// Main returns. In a process that a test started, Main does what the test asks
// of the locks and then exits.
func Main(locks Locks) {
	runProcess(locks)
	mainLocks = &locks
}

// mainLocks is the argument of Main. It is nil if Main was not called; then a
// process that a test starts would run all the tests and start more processes.
var mainLocks *Locks

// Test tests the locks. Each guarantee has a subtest below the one for the kind
// of lock, such as "RWMutex/KilledWriterFreesLock". The subtests run in
// parallel. Test itself should not run in parallel with other tests, because it
// counts goroutines.
func Test(t *testing.T, locks Locks) {
	switch {
	case mainLocks == nil:
		t.Fatal("locktest.Main was not called: it must be the first call in TestMain, or every other process would run all the tests")
	case proc.Pending():
		t.Fatal("a process that a test started must not run tests: locktest.Main must be the first call in TestMain, and os.Args must not change before it")
	case locks.RWMutex == nil && locks.RMutex == nil && locks.Semaphore == nil:
		t.Fatal("nothing to test: all fields of Locks are nil")
	}
	for kind, missing := range map[string]bool{
		"RWMutex":   locks.RWMutex != nil && mainLocks.RWMutex == nil,
		"RMutex":    locks.RMutex != nil && mainLocks.RMutex == nil,
		"Semaphore": locks.Semaphore != nil && mainLocks.Semaphore == nil,
	} {
		if missing {
			t.Fatalf("other processes have no %s: locktest.Main needs the same Locks as locktest.Test", kind)
		}
	}
	if locks.RWMutex != nil {
		t.Run("RWMutex", func(t *testing.T) { testRWMutex(t, locks.RWMutex) })
	}
	if locks.RMutex != nil {
		t.Run("RMutex", func(t *testing.T) { testRMutex(t, locks.RMutex) })
	}
	if locks.Semaphore != nil {
		t.Run("Semaphore", func(t *testing.T) { testSemaphore(t, locks.Semaphore) })
	}
}
