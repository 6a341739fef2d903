// Package locktest tests implementations of locks between processes: whatever has the methods of
// [interlock.FileRWMutex], [interlock.FileRMutex] or [interlock.FileSemaphore] should
// keep what their documentation promises, whether a file is behind it or something else.
//
// A test of an implementation is
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
// The tests start the test binary again, as the other processes, and kill some of these. What must happen they
// wait for, for a minute; what must not happen they watch out for, for a moment. So no test fails
// because the machine is slow, and with a broken lock one may take long.
//
// Not tested is what only locks of files have: Path, Group, options, the texts of errors but for a semaphore's sizes,
// permissions, and what becomes of a lock whose file is removed, renamed or replaced.
package locktest

import (
	"context"
	"sync"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

// RWMutex is the methods of [interlock.FileRWMutex] that are tested.
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

// RMutex is the methods of [interlock.FileRMutex] that are tested.
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

// Semaphore is the methods of [interlock.FileSemaphore] that are tested.
type Semaphore interface {
	Acquire(ctx context.Context, n int64) error
	TryAcquire(n int64) bool
	Release(n int64)
	Size() int64
	Close() error
}

// Locks is an implementation: how to open locks of each kind. Kinds that it does not have are nil.
//
// The name of a lock is an absolute path in a temporary directory of the test, which exists, and
// names one lock for all processes and all calls with that name. An implementation
// without files can take it for a mere name: nobody else makes a file there, or looks at one.
//
// A process that is killed must be gone for all others within the minute that a test waits: what it had, and its
// place among those who wait.
type Locks struct {
	RWMutex   func(name string) (RWMutex, error)
	RMutex    func(name string) (RMutex, error)
	Semaphore func(name string, size int64) (Semaphore, error)
}

// Main must be the first thing that TestMain does. It returns in the process that runs the tests. In those that the tests
// start, it does as they say with locks, and exits when they end.
func Main(locks Locks) {
	runProcess(locks)
	ofMain = &locks
}

// ofMain are the locks of the other processes, or nil if Main was not called: then each of those would run all the
// tests instead, and start more.
var ofMain *Locks

// Test tests the locks: each of their guarantees in a subtest that is named for it, below one for the kind of lock,
// such as "RWMutex/killed writer frees the lock". It should not run in parallel with other tests,
// since it counts goroutines; its subtests are parallel to each other.
func Test(t *testing.T, locks Locks) {
	switch {
	case ofMain == nil:
		t.Fatal("other processes would run all the tests: locktest.Main must be the first thing in TestMain")
	case proc.Pending():
		t.Fatal("this process was not to run tests: locktest.Main must be the first thing in TestMain, and nothing must have changed os.Args before")
	case locks.RWMutex == nil && locks.RMutex == nil && locks.Semaphore == nil:
		t.Fatal("there is nothing to test: all of Locks is nil")
	}
	for kind, missing := range map[string]bool{
		"RWMutex":   locks.RWMutex != nil && ofMain.RWMutex == nil,
		"RMutex":    locks.RMutex != nil && ofMain.RMutex == nil,
		"Semaphore": locks.Semaphore != nil && ofMain.Semaphore == nil,
	} {
		if missing {
			t.Fatalf("other processes have no %s: locktest.Main must be given the same Locks as locktest.Test", kind)
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
