package kit

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		need.Skip(t, "needs root, to mount or to become another user")
	}
}

// OpenDir returns a new directory that other users can reach. It is in TMPDIR
// if they can reach that.
func OpenDir(t testing.TB, perm os.FileMode) string {
	t.Helper()
	base := os.TempDir()
	Must(t, os.Chmod(base, 0o711)) // TestMain made it
	for dir := base; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			base = "/tmp"
		}
	}
	dir, err := os.MkdirTemp(base, "interlock-test-*")
	Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	Must(t, os.Chmod(dir, perm))
	return dir
}

// AsNobody starts a process of an unprivileged user that runs the named
// function.
func AsNobody(t testing.TB, name string, args ...string) *proc.Process {
	t.Helper()
	cmd := proc.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	// A copy, because that user may be unable to reach this program.
	cmd.Path = filepath.Join("/tmp", fmt.Sprintf("interlock-test-%d", os.Getpid()))
	if _, err := os.Stat(cmd.Path); err != nil {
		self, err := os.ReadFile("/proc/self/exe")
		Must(t, err)
		Must(t, os.WriteFile(cmd.Path, self, 0o755))
	}
	t.Cleanup(func() { os.Remove(cmd.Path) })
	cmd.Dir = "/"
	p := proc.StartCommand(cmd)
	t.Cleanup(p.Kill)
	return p
}

// Mount mounts a file system until the test ends, and returns its directory. It
// skips the test if it cannot.
func Mount(t testing.TB, source, fstype string, flags uintptr, data string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(source, dir, fstype, flags, data); err != nil {
		need.Skip(t, "cannot mount", fstype+":", err)
	}
	unmountLater(t, dir)
	return dir
}

// MountImage mounts the image that the command makes until the test ends, and
// returns the directory. It skips the test if it cannot.
func MountImage(t testing.TB, image string, command *exec.Cmd) string {
	t.Helper()
	dir := t.TempDir()
	for _, cmd := range []*exec.Cmd{command, exec.Command("mount", "-o", "loop", image, dir)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("%s: %v: %s", cmd, err, bytes.TrimSpace(out))
		}
	}
	unmountLater(t, dir)
	return dir
}

func unmountLater(t testing.TB, dir string) {
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// FileSystem returns the kernel's name of the file system at path.
func FileSystem(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "FSTYPE", "-T", path).Output()
	Must(t, err)
	return strings.TrimSpace(string(out))
}

// NoDescriptors makes every attempt to open a file fail, until restore is
// called or the test ends.
func NoDescriptors(t testing.TB) (restore func()) {
	t.Helper()
	var limit unix.Rlimit
	Must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 3
	Must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	restore = func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }
	t.Cleanup(restore)
	return restore
}

// Descriptors returns how many files a process has open. The process is "self"
// or a PID.
func Descriptors(t testing.TB, process string) int { return entries(t, process, "fd") }

// Threads returns how many threads a process has.
func Threads(t testing.TB, process string) int { return entries(t, process, "task") }

func entries(t testing.TB, process, dir string) int {
	t.Helper()
	all, err := os.ReadDir(filepath.Join("/proc", process, dir))
	Must(t, err)
	return len(all)
}

// Stop stops a process, and waits until all its threads stand still. After the
// signal alone, they can run on for a while on a busy machine.
func Stop(t testing.TB, p *proc.Process) {
	t.Helper()
	p.Signal(unix.SIGSTOP)
	err := unix.EINTR
	for err == unix.EINTR {
		err, _ = unix.Waitid(unix.P_PID, p.Pid(), nil, unix.WSTOPPED, nil).(unix.Errno)
	}
	if err != 0 {
		t.Fatalf("the process did not stop: %v", err)
	}
}
