package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/interlock-go/interlock/internal/wine"
)

// TestFullDiskIsUndone needs a small disk, which .ci/wine provides.
func TestFullDiskIsUndone(t *testing.T) {
	disk := os.Getenv("INTERLOCK_SMALL_DISK")
	if disk == "" {
		t.Skip("INTERLOCK_SMALL_DISK is not set")
	}
	old, long := strings.Repeat("old", 10_000), []byte(strings.Repeat("new", 1_000_000))
	path := filepath.Join(disk, "data")
	must(t, os.WriteFile(path, []byte(old), 0o600))
	defer os.Remove(path)
	for name, change := range map[string]func() error{
		"Write":     func() error { return Write(bg, path, long, 0) },
		"Append":    func() error { return Append(bg, path, long, 0) },
		"Transform": func() error { return Transform(bg, path, 0, func([]byte) ([]byte, error) { return long, nil }) },
	} {
		var pathErr *fs.PathError
		if err := change(); !errors.Is(err, windows.ERROR_DISK_FULL) || !errors.As(err, &pathErr) {
			t.Errorf("%s: %v", name, err)
		}
		wantFile(t, path, old)
	}
	created := filepath.Join(disk, "created")
	if err := Write(bg, created, long, 0o600); !errors.Is(err, windows.ERROR_DISK_FULL) {
		t.Error(err)
	}
	wantFile(t, path, old)
	must(t, Write(bg, path, []byte("short"), 0))
	wantFile(t, path, "short")
}

// TestFailedOverwriteIsUndone fails in the middle, at a byte that another
// handle has locked.
func TestFailedOverwriteIsUndone(t *testing.T) {
	wine.Skip(t, "lets other handles write locked bytes")
	path := newFile(t, "old contents")
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	must(t, windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{Offset: 1000}))
	long := []byte(strings.Repeat("new contents", 1000))
	for name, err := range map[string]error{
		"Write":  Write(bg, path, long, 0),
		"Append": Append(bg, path, long, 0),
	} {
		if !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantFile(t, path, "old contents")
	must(t, Write(bg, path, []byte("short"), 0))
	wantFile(t, path, "short")
}
