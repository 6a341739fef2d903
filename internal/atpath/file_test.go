package atpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock/internal/wine"
)

func newFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestIsAt(t *testing.T) {
	dir := t.TempDir()
	path, other, missing := filepath.Join(dir, "file"), filepath.Join(dir, "other"), filepath.Join(dir, "missing")
	f := newFile(t, path)
	newFile(t, other)
	for at, want := range map[string]bool{path: true, other: false, missing: false} {
		if is, err := IsAt(f, at, os.Lstat); is != want || err != nil {
			t.Errorf("%s: %t, %v", at, is, err)
		}
	}
	if is, err := IsAt(f, path+"\x00", os.Lstat); is || err == nil {
		t.Errorf("invalid path: %t, %v", is, err)
	}
	f.Close()
	// On Windows, Stat of a closed file returns another error.
	if is, err := IsAt(f, path, os.Lstat); is || err == nil || runtime.GOOS != "windows" && !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed file: %t, %v", is, err)
	}
}

func TestIsAtFollowsLinkByStat(t *testing.T) {
	wine.Skip(t, "has no symbolic links")
	dir := t.TempDir()
	path, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	f := newFile(t, path)
	if err := os.Symlink("file", link); err != nil {
		if runtime.GOOS == "windows" {
			t.Skip("no right to make symbolic links:", err)
		}
		t.Fatal(err)
	}
	if is, err := IsAt(f, link, os.Stat); !is || err != nil {
		t.Errorf("os.Stat: %t, %v", is, err)
	}
	if is, err := IsAt(f, link, os.Lstat); is || err != nil {
		t.Errorf("os.Lstat: %t, %v", is, err)
	}
}

func TestReleaseUnlocksThenCloses(t *testing.T) {
	failure := errors.New("failure")
	f := newFile(t, filepath.Join(t.TempDir(), "file"))
	err := Release(f, func(f *os.File) error {
		if _, err := f.Stat(); err != nil {
			t.Error("closed before it is unlocked:", err)
		}
		return failure
	})
	if err != failure {
		t.Error(err)
	}
	if err := Release(f, func(*os.File) error { return nil }); !errors.Is(err, fs.ErrClosed) {
		t.Error("not closed:", err)
	}
}
