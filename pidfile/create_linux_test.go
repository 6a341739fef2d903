package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

func init() {
	children["forgotten"] = forgotten
	children["without locks"] = withoutLocks
}

func TestOnlyRegularFiles(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	must(t, os.Symlink(path, path+".link"))
	must(t, syscall.Mkfifo(path+".fifo", 0o600))
	for path, what := range map[string]string{
		path + ".link": "a symbolic link",
		path + ".fifo": "a FIFO",
		t.TempDir():    "a directory",
		"/dev/null":    "a device",
	} {
		_, err := Create(path)
		_, _, readErr := Read(path)
		for _, err := range []error{err, readErr} {
			var pathErr *fs.PathError
			if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.Contains(err.Error(), what+", not a regular file") {
				t.Error(err)
			}
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "precious" {
		t.Error(data, err)
	}
}

func TestFileIsReadableToAll(t *testing.T) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	path := newPath(t)
	mustCreate(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Error(info, err)
	}
}

// forgotten creates or reads a PID file while a system call fails with ESTALE,
// as on a remote file system that no longer knows the file. The call fails for
// one descriptor: the next one that is opened.
func forgotten(args []string) {
	f := interlock.Must(os.Open("/dev/null"))
	fd := f.Fd()
	f.Close()
	call := interlock.Must(strconv.Atoi(args[1]))
	proc.Refuse(uint32(call), unix.ESTALE, int(fd))
	begin := time.Now()
	go func() { // Take that descriptor when it is free.
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

func TestForgottenFileIsOpenedAgain(t *testing.T) {
	for _, call := range []int{unix.SYS_FSTAT, unix.SYS_FLOCK} {
		for op, want := range map[string]string{
			"create": "true true <nil> true",
			"read":   "false false <nil> true",
		} {
			path := newPath(t)
			must(t, os.WriteFile(path, []byte("4000001\n"), 0o600))
			p := proc.Start("forgotten", path, strconv.Itoa(call), op)
			if got := p.Expect(""); got != want {
				t.Errorf("%s with call %d: got %s, want %s", op, call, got, want)
			}
			must(t, p.Close())
		}
	}
}

// withoutLocks creates a PID file where no file can be locked.
func withoutLocks(args []string) {
	errno, _ := strconv.Atoi(args[1])
	proc.Refuse(unix.SYS_FLOCK, unix.Errno(errno), -1)
	_, err := Create(args[0])
	fmt.Println(errors.Is(err, errors.ErrUnsupported), err)
}

// TestCreateWithoutLocks fails to lock the new file. Create removes it, except
// after ENOLCK: then another process may have locked it.
func TestCreateWithoutLocks(t *testing.T) {
	for errno, removed := range map[unix.Errno]bool{unix.EOPNOTSUPP: true, unix.ENOSYS: true, unix.ENOLCK: false} {
		path := newPath(t)
		p := proc.Start("without locks", path, strconv.Itoa(int(errno)))
		p.Expect("true")
		must(t, p.Close())
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) != removed {
			t.Error(errno, err)
		}
	}
}
