package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
)

// TestPIDOfDeadProcessIsNotReported calls Create while another process takes
// over a file: it has the lock, but the file still contains the ID of a dead
// process.
func TestPIDOfDeadProcessIsNotReported(t *testing.T) {
	dead := exec.Command("/proc/self/exe", "-test.list=^$")
	must(t, dead.Run())
	var running *RunningError
	for range 20 { // Create waits for the new ID, but less than a busy machine may take.
		path := newPath(t)
		must(t, os.WriteFile(path, fmt.Appendln(nil, dead.Process.Pid), 0o600))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		must(t, interlock.TryLock(f))
		done := make(chan error)
		go func() {
			_, err := Create(path)
			done <- err
		}()
		time.Sleep(time.Millisecond)
		must(t, write(f))
		if err = <-done; !errors.As(err, &running) {
			t.Fatal(err)
		}
		f.Close()
		switch running.PID {
		case os.Getpid():
			return
		case dead.Process.Pid:
			t.Fatal("reported the dead process")
		}
	}
	t.Error("never reported the new holder")
}

// TestPIDOfOtherProcessIsNotReported leaves the ID of a process that exists,
// but does not hold the lock.
func TestPIDOfOtherProcessIsNotReported(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("1\n"), 0o600))
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path, long, long)) // Set both: libfuse ignores one alone.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, interlock.TryLock(f))
	if holders, err := interlock.Holders(path); len(holders) != 1 || holders[0].PID != os.Getpid() {
		t.Skip("the system does not say which process holds the lock:", holders, err)
	}
	wantRunning(t, path, 0)
	var pathErr *fs.PathError
	if pid, running, err := Read(path); pid != 0 || !running || !errors.As(err, &pathErr) || pathErr.Path != path {
		t.Error(pid, running, err)
	}
	must(t, write(f))
	wantRunning(t, path, os.Getpid())
	wantRead(t, path, os.Getpid(), true)
}
