package systemtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/fusefs"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// children are what the test binary does in processes of their own.
var children = map[string]proc.Func{
	"locker":   func(args []string) { kit.ServeRWMutex(interlock.Must(interlock.NewFileRWMutex(args[0]))) },
	"acquirer": acquirer,
	"fuse":     fusefs.Serve,
}

// acquirer serves the semaphore with the name and the size.
func acquirer(args []string) {
	size, _ := strconv.ParseInt(args[1], 10, 64)
	s, err := interlock.NewFileSemaphore(args[0], size)
	if err != nil {
		fmt.Println(err)
		return
	}
	kit.ServeSemaphore(s)
}

func TestMain(m *testing.M) {
	proc.Run(children)
	os.Setenv("GORACE", "atexit_sleep_ms=0") // many child processes exit
	tmp := interlock.Must(os.MkdirTemp("", "interlock-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

// usualGrace is how long a call may run on after its context is done, for
// users. On a busy machine a call that ends with its context can take longer.
// Only tests of file systems that do not answer expect that calls are abandoned
// in time.
var usualGrace = offload.Grace()

func init() {
	if os.Getenv("INTERLOCK_NFS") == "" {
		offload.SetGrace(time.Second)
	}
}

// mountFUSE mounts a file system of package fusefs, for which calls are
// abandoned in the usual time.
func mountFUSE(t *testing.T, mode string) (*proc.Process, string) {
	t.Helper()
	t.Cleanup(offload.SetGrace(usualGrace))
	return fusefs.Mount(t, mode)
}

// localAndRemote runs a test in two directories that other users can reach. One
// is in TMPDIR. The other is on ramfs, which interlock does not know to be
// local.
func localAndRemote(t *testing.T, test func(t *testing.T, dir string)) {
	t.Run("TMPDIR", func(t *testing.T) { test(t, kit.OpenDir(t, 0o777)) })
	t.Run("remote", func(t *testing.T) { test(t, ramfs(t)) })
}

// ramfs mounts a file system that interlock does not know to be local.
func ramfs(t *testing.T) string {
	t.Helper()
	kit.NeedRoot(t)
	base := kit.OpenDir(t, 0o777)
	if err := unix.Mount("none", base, "ramfs", 0, "mode=777"); err != nil {
		need.Skip(t, "cannot mount ramfs:", err)
	}
	t.Cleanup(func() { kit.Must(t, unix.Unmount(base, unix.MNT_DETACH)) })
	return base
}

// newMutex returns a FileRWMutex that is closed after the test, which must
// leave it unlocked.
func newMutex(t testing.TB, path string, opts ...interlock.Option) *interlock.FileRWMutex {
	t.Helper()
	m, err := interlock.NewFileRWMutex(path, opts...)
	kit.Must(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// newSemaphore returns a FileSemaphore that is closed after the test, which
// must release all units.
func newSemaphore(t testing.TB, name string, size int64, opts ...interlock.Option) *interlock.FileSemaphore {
	t.Helper()
	s, err := interlock.NewFileSemaphore(name, size, opts...)
	kit.Must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// locking locks m on another goroutine.
func locking(ctx context.Context, m *interlock.FileRWMutex) <-chan error {
	return kit.Start(func() error { return m.LockContext(ctx) })
}

// acquiring acquires n units of s on another goroutine.
func acquiring(ctx context.Context, s *interlock.FileSemaphore, n int64) <-chan error {
	return kit.Start(func() error { return s.Acquire(ctx, n) })
}

func wantTry(t testing.TB, s *interlock.FileSemaphore, n int64, want bool) {
	t.Helper()
	if got := s.TryAcquire(n); got != want {
		t.Fatalf("TryAcquire(%d) = %t, want %t", n, got, want)
	}
}

// methods returns the methods of m that take a context.
func methods(m *interlock.FileRWMutex) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"LockContext":     m.LockContext,
		"RLockContext":    m.RLockContext,
		"TryLockContext":  m.TryLockContext,
		"TryRLockContext": m.TryRLockContext,
	}
}

// settle makes m sure of its file, so that it looks no closer than it must.
func settle(m *interlock.FileRWMutex) {
	for range 2 {
		time.Sleep(50 * time.Millisecond)
		m.Lock()
		m.Unlock()
	}
}

// gateByte is the byte of a lock file that a waiting process locks. Where that
// does not work, the process locks a byte of a sibling file.
const gateByte, gateSuffix = 1 << 61, ".gate"

// writerAtGate reports whether a writer stands at the gate of the lock file.
func writerAtGate(path string) bool {
	l := unix.Flock_t{Type: unix.F_RDLCK} // any byte
	f, err := os.Open(path + gateSuffix)
	if err != nil {
		if f, err = os.Open(path); err != nil {
			return false
		}
		l.Start, l.Len = gateByte, 1
	}
	defer f.Close()
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// waitForWriter waits until a writer stands at the gate of the lock file.
func waitForWriter(t testing.TB, path string) {
	t.Helper()
	kit.WaitFor(t, "a writer stands at the gate", func() bool { return writerAtGate(path) })
}

// needGateInFile skips a test where the gate is a sibling file.
func needGateInFile(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, "gate-of-what-kind")
	holder, m := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	waiter := locking(t.Context(), m)
	waitForWriter(t, path)
	holder.Unlock()
	kit.Must(t, kit.Finish(t, waiter))
	m.Unlock()
	if _, err := os.Stat(path + gateSuffix); err == nil {
		t.Skip("the gate is a sibling file here")
	}
}
