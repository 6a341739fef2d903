package pidfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
)

func TestCloseRemovesFile(t *testing.T) {
	path := newPath(t)
	f := mustCreate(t, path)
	must(t, f.Close())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("not removed:", err)
	}
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestCloseRemovesFileAfterChdir(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	f := mustCreate(t, "pid")
	t.Chdir(t.TempDir())
	must(t, f.Close())
	if _, err := os.Stat(filepath.Join(dir, "pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("not removed:", err)
	}
}

func TestCloseLeavesNewFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows an open file cannot be removed")
	}
	path := newPath(t)
	f := mustCreate(t, path)
	must(t, os.Remove(path))
	second := mustCreate(t, path)
	must(t, f.Close())
	wantRead(t, path, os.Getpid(), true)
	wantRunning(t, path, os.Getpid())
	must(t, second.Close())
}

func TestChildDoesNotInheritLock(t *testing.T) {
	path := newPath(t)
	f := mustCreate(t, path)
	child := proc.Start("run", newPath(t))
	defer child.Kill()
	child.Expect("ok")
	// As when this process is killed. f.Close would unlock the file for the
	// child, too.
	must(t, f.file.Close())
	mustCreate(t, path)
}
