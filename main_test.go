package interlock

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"go.uber.org/goleak"
)

// children are what the test binary does in processes of their own.
var children = map[string]proc.Func{
	"locker":   locker,
	"acquirer": acquirer,
}

// MainOfConformance is set by a test that this package cannot import (conformance_test.go).
var MainOfConformance func()

// On a busy machine, calls that end with their context take longer to do so. Tests that expect them to have ended
// must not depend on that; where a file system does not answer, they expect only that they are given up.
func init() {
	if os.Getenv("INTERLOCK_NFS") == "" {
		grace = time.Second
	}
}

func TestMain(m *testing.M) {
	MainOfConformance()
	proc.Run(children)
	tmp := Must(os.MkdirTemp("", "interlock-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

// locker has a FileRWMutex and does with it what it is told.
func locker(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	calls := map[string]func(context.Context) error{
		"lock":     m.LockContext,
		"rlock":    m.RLockContext,
		"trylock":  m.TryLockContext,
		"tryrlock": m.TryRLockContext,
		"unlock":   func(context.Context) error { m.Unlock(); return nil },
		"runlock":  func(context.Context) error { m.RUnlock(); return nil },
	}
	serve(func(ctx context.Context, name string) error { return calls[name](ctx) })
}

// serve calls do with every line of the input, on a goroutine of its own, and prints the line and what
// came of it: "ok" or an error. The line "cancel" cancels what goes on.
func serve(do func(ctx context.Context, line string) error) {
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(context.Background())
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line := in.Text()
		if line == "cancel" {
			cancel()
			ctx, cancel = context.WithCancel(context.Background())
			continue
		}
		ctx := ctx
		go func() {
			err := do(ctx, line)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fmt.Println(line, err)
			} else {
				fmt.Println(line, "ok")
			}
		}()
	}
	cancel()
}

func startLocker(t testing.TB, path string) *proc.Process {
	t.Helper()
	return startServer(t, "locker", path)
}

// startServer starts a process that ends in serve.
func startServer(t testing.TB, name string, args ...string) *proc.Process {
	t.Helper()
	p := proc.Start(name, args...)
	t.Cleanup(p.Kill)
	p.Expect("ready")
	return p
}

// lockPath is the path of a lock file that does not exist yet.
func lockPath(t testing.TB) string { return filepath.Join(tempDir(t), "lock") }

// tempDir is a directory for the test. On NFS it remains: what is open there, if only because a call
// is still on its way, cannot be removed.
func tempDir(t testing.TB) string {
	if os.Getenv("INTERLOCK_NFS") != "" {
		return Must(os.MkdirTemp("", "test-*"))
	}
	return t.TempDir()
}

// newMutex is a FileRWMutex that is closed after the test, which must leave it unlocked.
func newMutex(t testing.TB, path string, opts ...Option) *FileRWMutex {
	t.Helper()
	m, err := NewFileRWMutex(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// patience is for what happens unless something is broken, however slow the machine.
const patience = 60 * time.Second

// moment is for what must not happen: long enough to see it nearly always if it can.
const moment = 50 * time.Millisecond

// start runs call on a goroutine and returns a channel with its result.
func start(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// finish waits for a result of start.
func finish(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("still waiting")
		return nil
	}
}

// pending fails if a result of start is there already.
func pending(t testing.TB, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(moment):
	}
}

// waitFor waits until cond holds.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("not in time: " + what)
		}
	}
}
