package lockedfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/need"
	"golang.org/x/sys/unix"
)

func TestDirectoryWithMisleadingName(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(gone, 0o755))
	dir, err := os.Open(gone)
	must(t, err)
	defer dir.Close()
	must(t, os.Remove(gone))
	other := gone + " (deleted)" // how the kernel names the removed directory
	must(t, os.Mkdir(other, 0o755))
	must(t, os.WriteFile(filepath.Join(other, "data"), []byte("other"), 0o600))
	path := fmt.Sprintf("/proc/self/fd/%d/data", dir.Fd())
	if data, err := Read(bg, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", data, err)
	}
	if err := Write(bg, path, []byte("new"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	wantFile(t, filepath.Join(other, "data"), "other")
}

func TestWorkingDirectoryUnderMount(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "data"), []byte("under"), 0o600))
	t.Chdir(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		need.Skip(t, "cannot mount:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	must(t, os.WriteFile(filepath.Join(dir, "data"), []byte("over"), 0o600))
	must(t, Append(bg, "data", []byte("!"), 0o600))
	must(t, Transform(bg, "data", 0o600, func(old []byte) ([]byte, error) { return append(old, '!'), nil }))
	wantFile(t, "data", "under!!")
	wantFile(t, filepath.Join(dir, "data"), "over")
}

// TestFileWithoutName uses a link of /proc to a file whose last name was
// removed. Such a file can be read, but not changed.
func TestFileWithoutName(t *testing.T) {
	path := newFile(t, "old")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(path))
	name := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	for op := range ops {
		if err := finish(t, start(func() error { return ops[op](name) })); !errors.Is(err, errReplaced) {
			t.Error(op, err)
		}
	}
	if data, err := Read(bg, name); string(data) != "old" {
		t.Error(string(data), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Error(left, err)
	}
}

func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	fifo, sock := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	must(t, unix.Mkfifo(fifo, 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: sock}))
	for path, what := range map[string]string{dir: "directory", fifo: "FIFO", sock: "socket", "/dev/null": "device"} {
		calls := []func() error{
			func() error { _, err := Read(bg, path); return err },
			func() error { _, err := OpenFile(bg, path, os.O_WRONLY|os.O_CREATE, 0o600); return err },
		}
		for op := range ops {
			calls = append(calls, func() error { return ops[op](path) })
		}
		for _, call := range calls {
			var pathErr *fs.PathError
			err := finish(t, start(call))
			if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.HasSuffix(err.Error(), what+", not a regular file") {
				t.Error(err)
			}
		}
	}
}
