package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
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

// Nor is the PID of a process that lives, if another has the lock; by Read no more than by Create.
func TestPIDOfAnotherIsNotReported(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("1\n"), 0o600)) // which a process of before had
	long := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(path, long, long)) // both: libfuse ignores one alone
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, interlock.TryLock(f))
	if holders, err := interlock.Holders(path); len(holders) != 1 || holders[0].PID != os.Getpid() {
		t.Skip("the system does not tell who has the lock:", holders, err)
	}
	refused(t, path, 0)
	var pathErr *fs.PathError
	if pid, running, err := Read(path); pid != 0 || !running || !errors.As(err, &pathErr) || pathErr.Path != path {
		t.Error(pid, running, err)
	}
	must(t, write(f))
	refused(t, path, os.Getpid())
	reads(t, path, os.Getpid(), true)
}

func init() { children["forgotten"] = forgotten }

// forgotten makes and reads a PID file, where a call on one number of a descriptor, the next, fails as if the
// file system did not know the file any more.
func forgotten(args []string) {
	f := interlock.Must(os.Open("/dev/null"))
	fd := f.Fd()
	f.Close()
	call := interlock.Must(strconv.Atoi(args[1]))
	proc.Refuse(uint32(call), unix.ESTALE, int(fd))
	begin := time.Now()
	go func() { // until another file has that number
		time.Sleep(10 * time.Millisecond)
		for f.Fd() != fd {
			f = interlock.Must(os.Open("/dev/null"))
		}
	}()
	if args[2] == "create" {
		interlock.Must(Create(args[0]))
	}
	pid, running, err := Read(args[0])
	fmt.Println(pid == os.Getpid(), running, err, time.Since(begin) > 10*time.Millisecond)
}

func TestForgottenFileIsOpenedAnew(t *testing.T) {
	for _, call := range []int{unix.SYS_FSTAT, unix.SYS_FLOCK} {
		for _, do := range []string{"create", "read"} {
			path := newPath(t)
			must(t, os.WriteFile(path, []byte("4000001\n"), 0o600))
			want := "true true <nil> true"
			if do == "read" {
				want = "false false <nil> true"
			}
			p := proc.Start("forgotten", path, strconv.Itoa(call), do)
			if got := p.Expect(""); got != want {
				t.Error(call, do, got)
			}
			must(t, p.Close())
		}
	}
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

func init() {
	children["without locks"] = func(args []string) {
		errno, _ := strconv.Atoi(args[1])
		proc.Refuse(unix.SYS_FLOCK, unix.Errno(errno), -1)
		_, err := Create(args[0])
		fmt.Println(errors.Is(err, errors.ErrUnsupported), err)
	}
}

// Where there are no locks, Create leaves no file that it made. But where it may be that others can lock it, it must not remove it.
func TestCreateWithoutLocks(t *testing.T) {
	for errno, removes := range map[unix.Errno]bool{unix.EOPNOTSUPP: true, unix.ENOSYS: true, unix.ENOLCK: false} {
		path := newPath(t)
		p := proc.Start("without locks", path, strconv.Itoa(int(errno)))
		p.Expect("true")
		must(t, p.Close())
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) != removes {
			t.Error(errno, err)
		}
	}
}
