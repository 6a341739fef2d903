package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/wine"
	"golang.org/x/sys/windows"
)

// A write for which the disk is too small is undone. The disk is of .ci/wine.
func TestOverwriteUndoneOnAFullDisk(t *testing.T) {
	disk := os.Getenv("INTERLOCK_SMALL_DISK")
	if disk == "" {
		t.Skip("no INTERLOCK_SMALL_DISK")
	}
	old, long := strings.Repeat("old", 10_000), []byte(strings.Repeat("new", 1_000_000))
	path := filepath.Join(disk, "data")
	must(t, os.WriteFile(path, []byte(old), 0o600))
	defer os.Remove(path)
	for what, change := range map[string]func() error{
		"Write":     func() error { return Write(bg, path, long, 0) },
		"Append":    func() error { return Append(bg, path, long, 0) },
		"Transform": func() error { return Transform(bg, path, 0, func([]byte) ([]byte, error) { return long, nil }) },
	} {
		var pathErr *fs.PathError
		if err := change(); !errors.Is(err, windows.ERROR_DISK_FULL) || !errors.As(err, &pathErr) {
			t.Errorf("%s: %v", what, err)
		}
		holds(t, path, old)
	}
	made := filepath.Join(disk, "made")
	if err := Write(bg, made, long, 0o600); !errors.Is(err, windows.ERROR_DISK_FULL) {
		t.Error(err)
	}
	holds(t, path, old) // and nothing lies beside it
	must(t, Write(bg, path, []byte("short"), 0))
	holds(t, path, "short")
}

// A write that fails in the middle, at a byte that somebody else has locked, is undone.
func TestOverwriteUndone(t *testing.T) {
	path := newFile(t, "old contents")
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	must(t, windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{Offset: 1000}))
	wine.Skip(t, "does not keep others from writing what is locked")
	long := []byte(strings.Repeat("new contents", 1000))
	for what, err := range map[string]error{
		"Write":  Write(bg, path, long, 0),
		"Append": Append(bg, path, long, 0),
	} {
		if !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			t.Errorf("%s: %v", what, err)
		}
	}
	holds(t, path, "old contents")
	must(t, Write(bg, path, []byte("short"), 0))
	holds(t, path, "short")
}
