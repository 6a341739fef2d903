package interlock

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"go.uber.org/goleak"
)

// children are what the test binary does in processes of their own.
var children = map[string]proc.Func{
	"locker":   func(args []string) { kit.ServeRWMutex(Must(NewFileRWMutex(args[0]))) },
	"acquirer": acquirer,
}

// MainOfConformance is set by conformance_test.go, which is in another package
// because package locktest imports this one.
var MainOfConformance func()

func init() {
	if os.Getenv("INTERLOCK_NFS") == "" {
		offload.SetGrace(time.Second)
	}
}

func TestMain(m *testing.M) {
	MainOfConformance()
	proc.Run(children)
	os.Setenv("GORACE", "atexit_sleep_ms=0") // many child processes exit
	tmp := Must(os.MkdirTemp("", "interlock-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

// lockPath returns the path of a lock file that does not exist yet.
func lockPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(tempDir(t), "lock")
}

// newMutex returns a FileRWMutex that is closed after the test, which must
// leave it unlocked.
func newMutex(t testing.TB, path string, opts ...Option) *FileRWMutex {
	t.Helper()
	m, err := NewFileRWMutex(path, opts...)
	must(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// startLocker starts a process that locks the file at path on request, see
// [kit.ServeRWMutex].
func startLocker(t testing.TB, path string) *proc.Process {
	t.Helper()
	return startServer(t, "locker", path)
}
