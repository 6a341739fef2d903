package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
)

// Between the lock and the PID of who takes over a file, there is the PID of a process that is gone.
func TestPIDOfTheDeadIsNotReported(t *testing.T) {
	dead := exec.Command("/proc/self/exe", "-test.list=^$")
	if err := dead.Run(); err != nil {
		t.Skip("cannot start a process:", err)
	}
	var running *RunningError
	for range 20 { // it takes its time to notice, but not for as long as this machine may sleep
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
			t.Error(err)
		}
		f.Close()
		if running.PID == os.Getpid() {
			return
		}
	}
	t.Error(running)
}

func TestWhatIsNoRegularFileIsRefused(t *testing.T) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	must(t, os.Symlink(path, path+".link"))
	must(t, syscall.Mkfifo(path+".fifo", 0o600))
	for _, path := range []string{path + ".link", path + ".fifo", t.TempDir(), "/dev/null"} {
		var pathErr *fs.PathError
		if _, err := Create(path); !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Error(err)
		}
		if _, _, err := Read(path); !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Error(err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Error(data, err)
	}
	// Others may read it.
	must(t, os.Remove(path))
	create(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Error(info, err)
	}
}
