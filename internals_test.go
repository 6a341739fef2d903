package interlock

import (
	"context"
	"testing"
	"time"
)

// This file gives tests access to the internals of locks and lock files.

// lockFileAt opens the lock file at path. It is closed after the test.
func lockFileAt(t testing.TB, path string) *lockFile {
	t.Helper()
	f := openLockFileAt(t, path)
	t.Cleanup(f.close)
	return f
}

func openLockFileAt(t testing.TB, path string) *lockFile {
	t.Helper()
	o, err := newOptions(nil)
	must(t, err)
	f, err := openLockFile(path, path, o, true)
	must(t, err)
	return f
}

// taken reports whether a process stands at the gate of f that mode m must not
// overtake.
func taken(f *lockFile, m mode) bool { return f.gateTaken(f.file, m) }

// settle waits until the file's ctime is old enough to prove that the file is
// at its path, and locks m so that m sees that. From then on, m makes as few
// system calls as it can.
func settle(m *FileRWMutex) {
	for range 2 {
		time.Sleep(2 * ctimeSettled)
		m.Lock()
		m.Unlock()
	}
}

// locking locks m on another goroutine.
func locking(ctx context.Context, m *FileRWMutex) <-chan error {
	return start(func() error { return m.LockContext(ctx) })
}

// following waits until n goroutines wait for m on behalf of o, including the
// leader.
func following(t *testing.T, m *FileRMutex, o Owner, n int) {
	t.Helper()
	waitFor(t, "goroutines of an owner wait", func() bool {
		m.lock.mu.Lock()
		defer m.lock.mu.Unlock()
		q := m.lock.waits[o]
		return q != nil && q.waiting[exclusive] == n
	})
}
