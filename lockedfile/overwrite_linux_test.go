package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/need"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a tmpfs of one megabyte that is full except for the given
// number of bytes. It contains a file with the contents, whose path smallDisk
// returns. Other users can write to the file, but not to its directory.
func smallDisk(t *testing.T, contents string, left int) (path string) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		need.Skip(t, "cannot mount tmpfs:", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	openToAll(t, dir)
	path = filepath.Join(dir, "data")
	must(t, os.WriteFile(path, []byte(contents), 0o600))
	must(t, os.Chmod(path, 0o666))
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	info, err := os.Stat(filler)
	must(t, err)
	must(t, os.Truncate(filler, info.Size()-int64(left)))
	return path
}

// fill adds to the file at path until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func TestFullDiskLeavesOldContents(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for _, op := range []string{"write", "trywrite", "transform", "append"} {
		t.Run(op, func(t *testing.T) {
			path := smallDisk(t, contents, 100_000)
			before, err := os.Stat(path)
			must(t, err)
			var pathErr *fs.PathError
			if err := ops[op](path); !errors.Is(err, unix.ENOSPC) || !errors.As(err, &pathErr) || pathErr.Path != path {
				t.Error(err)
			}
			wantFile(t, path, contents)
			wantUnlocked(t, path)
			if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
				t.Error("replaced", err)
			}
			missing := path + "2"
			if err := ops[op](missing); !errors.Is(err, unix.ENOSPC) {
				t.Error(err)
			}
			wantNoFile(t, missing)
			wantNoTemp(t, path)
		})
	}
}

func TestFullDiskIsUndoneInPlace(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for _, op := range []string{"write", "trywrite", "transform", "append"} {
		t.Run(op, func(t *testing.T) {
			path := smallDisk(t, contents, 100_000)
			if got := doAsNobody(t, op, path); !strings.HasPrefix(got, "ENOSPC") || !strings.Contains(got, path+":") {
				t.Error(got)
			}
			wantFile(t, path, contents)
		})
	}
}

// TestHoleNeedNotBeUndone overwrites a file with a hole. There is no space to
// write the hole back as zeros.
func TestHoleNeedNotBeUndone(t *testing.T) {
	path := smallDisk(t, "old", 0)
	filler := filepath.Join(filepath.Dir(path), "filler")
	must(t, os.Truncate(path, 600_000))
	contents, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Truncate(filler, 800_000))
	fill(t, filler)
	if got := doAsNobody(t, "write", path); !strings.HasPrefix(got, "ENOSPC") || strings.Contains(got, "restored") {
		t.Error(got)
	}
	wantFile(t, path, string(contents))
}

func TestUnwritableDirectoryIsOverwritten(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for op, want := range map[string]string{
		"write":     string(large()),
		"transform": contents + string(large()),
		"shrink":    "new",
	} {
		path := smallDisk(t, contents, 600_000)
		before, err := os.Stat(path)
		must(t, err)
		if got := doAsNobody(t, op, path); got != "ok" {
			t.Error(got)
		}
		wantFile(t, path, want)
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
			t.Error("not in place", err)
		}
		if got := doAsNobody(t, op, path+"2"); !strings.HasPrefix(got, "EACCES") || !strings.Contains(got, path+"2:") {
			t.Error(got)
		}
	}
}
