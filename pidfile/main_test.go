package pidfile

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

// children are what the test binary does in child processes.
var children = map[string]proc.Func{"run": run}

func TestMain(m *testing.M) {
	proc.Run(children)
	os.Setenv("GORACE", "atexit_sleep_ms=0") // Many child processes exit.
	tmp := interlock.Must(os.MkdirTemp("", "interlock-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

// run is a program that runs only once at a time. It prints the error of
// Create, or ok, and runs until its standard input ends.
func run(args []string) {
	f, err := Create(args[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ok")
	bufio.NewReader(os.Stdin).ReadString('\n')
	if err := f.Close(); err != nil {
		panic(err)
	}
}

var must = kit.Must

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "pid") }

// mustCreate creates the PID file at path, until it is closed or the test ends.
func mustCreate(t testing.TB, path string) *File {
	t.Helper()
	f, err := Create(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// wantRead fails unless Read returns this.
func wantRead(t testing.TB, path string, pid int, running bool) {
	t.Helper()
	gotPID, gotRunning, err := Read(path)
	if gotPID != pid || gotRunning != running || err != nil {
		t.Errorf("Read returned %d, %t, %v; want %d, %t", gotPID, gotRunning, err, pid, running)
	}
}

// wantRunning fails unless Create finds that this process is running.
func wantRunning(t testing.TB, path string, pid int) {
	t.Helper()
	f, err := Create(path)
	if err == nil {
		f.Close()
	}
	var running *RunningError
	if !errors.As(err, &running) || *running != (RunningError{path, pid}) || !errors.Is(err, interlock.ErrLocked) {
		t.Errorf("Create returned %v, want a RunningError with PID %d", err, pid)
	}
}
