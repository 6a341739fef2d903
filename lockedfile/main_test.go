package lockedfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

// children are what the test binary does in child processes.
var children = map[string]proc.Func{}

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

var bg = context.Background()

// These are short names for helpers that tests of several packages use.
var (
	must        = kit.Must
	start       = kit.Start
	finish      = kit.Finish
	wantBlocked = kit.Pending
)

// newFile returns the path of a new file with the contents.
func newFile(t testing.TB, contents string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(path, []byte(contents), 0o600))
	return path
}

// wantFile fails unless the file at path has the contents and no temporary file
// is beside it.
func wantFile(t testing.TB, path, want string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if string(data) != want {
		t.Errorf("%s contains %.80q (%d bytes), want %.80q (%d bytes)", path, data, len(data), want, len(want))
	}
	wantNoTemp(t, path)
}

// wantNoTemp fails if a temporary file is in the directory of path.
func wantNoTemp(t testing.TB, path string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*lockedfile*"))
	must(t, err)
	if len(left) > 0 {
		t.Error("temporary files are left:", left)
	}
}

// wantNoFile fails if there is a file at path.
func wantNoFile(t testing.TB, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s exists, or cannot be looked at: %v", path, err)
	}
}

// wantUnlocked fails if the file at path is locked.
func wantUnlocked(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	if err := interlock.TryLock(f); err != nil {
		t.Error(err)
	}
}

// wantMode fails unless the file at path has the mode, on systems that have
// modes.
func wantMode(t testing.TB, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if runtime.GOOS != "windows" && info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
	}
}

// lockFile locks the file at path until it is closed, or the test ends.
func lockFile(t testing.TB, path string) *File {
	t.Helper()
	f, err := OpenFile(bg, path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// needReplace skips a test of replacing files where they are overwritten.
func needReplace(t testing.TB) {
	t.Helper()
	if !canReplace {
		t.Skip("an open file can neither be replaced nor removed on this system")
	}
}

// addOne is a function for Transform. It adds one to a number.
func addOne(old []byte) ([]byte, error) {
	n := 0
	if len(old) > 0 {
		var err error
		if n, err = strconv.Atoi(string(old)); err != nil {
			return nil, err
		}
	}
	return strconv.AppendInt(nil, int64(n+1), 10), nil
}
