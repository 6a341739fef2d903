package lockedfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
)

func init() { children["do"] = do }

// ops are changes of a file, for tests that apply to all of them.
var ops = map[string]func(path string) error{
	"write":        func(path string) error { return Write(bg, path, large(), 0o600) },
	"trywrite":     func(path string) error { return TryWrite(path, large(), 0o600) },
	"transform":    func(path string) error { return Transform(bg, path, 0o600, enlarge) },
	"append":       func(path string) error { return Append(bg, path, large(), 0o600) },
	"shrink":       func(path string) error { return Write(bg, path, []byte("new"), 0o600) },
	"nosyncwrite":  func(path string) error { return Write(WithoutSync(bg), path, large(), 0o600) },
	"nosyncappend": func(path string) error { return Append(WithoutSync(bg), path, large(), 0o600) },
}

var large = sync.OnceValue(func() []byte { return []byte(strings.Repeat("large", 100_000)) })

func enlarge(old []byte) ([]byte, error) { return append(old, large()...), nil }

// do does an op on a path and prints its error, or ok. Two more arguments are
// the number of a system call and the error with which all calls of it fail.
func do(args []string) {
	if len(args) == 4 {
		proc.Refuse(number(args[2]), unix.Errno(number(args[3])), -1)
	}
	if err := ops[args[0]](args[1]); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		fmt.Println(unix.ErrnoName(errno), err)
		return
	}
	fmt.Println("ok")
}

func number(s string) uint32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return uint32(n)
}

// doWithout does an op in a process where all calls of one system call fail
// with errno. It returns what the process prints.
func doWithout(op, path string, call, errno int) string {
	p := proc.Start("do", op, path, strconv.Itoa(call), strconv.Itoa(errno))
	defer p.Close()
	return p.Expect("")
}

// uidNobody is the ID of a user without privileges, and of its group.
const uidNobody = 65534

// doAsNobody does an op in a process without privileges, and returns what the
// process prints. The optional arguments are those of doWithout.
func doAsNobody(t *testing.T, op, path string, call ...int) string {
	t.Helper()
	args := []string{op, path}
	for _, n := range call {
		args = append(args, strconv.Itoa(n))
	}
	cmd := proc.Command("do", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uidNobody, Gid: uidNobody}}
	// Copy the test binary to a directory that all users can read.
	cmd.Path = filepath.Join("/tmp", fmt.Sprintf("lockedfile-test-%d", os.Getpid()))
	if _, err := os.Stat(cmd.Path); err != nil {
		self, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(cmd.Path, self, 0o755))
	}
	t.Cleanup(func() { os.Remove(cmd.Path) })
	cmd.Dir = "/"
	p := proc.StartCommand(cmd)
	defer p.Close()
	return p.Expect("")
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		need.Skip(t, "needs root, to mount file systems and to act as another user")
	}
}

// openToAll lets all users enter a directory of t.TempDir.
func openToAll(t *testing.T, dir string) {
	t.Helper()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755))
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	must(t, unix.Stat(path, &st))
	return st
}
