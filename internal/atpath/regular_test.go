package atpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckRegular(t *testing.T) {
	for mode, want := range map[fs.FileMode]string{
		fs.ModeDir | 0o755:                  "is a directory, not a regular file",
		fs.ModeSymlink:                      "is a symbolic link, not a regular file",
		fs.ModeNamedPipe | 0o600:            "is a FIFO, not a regular file",
		fs.ModeSocket:                       "is a socket, not a regular file",
		fs.ModeDevice:                       "is a device, not a regular file",
		fs.ModeDevice | fs.ModeCharDevice:   "is a device, not a regular file",
		fs.ModeIrregular:                    "is not a regular file",
		fs.ModeDir | fs.ModeSticky | 0o1777: "is a directory, not a regular file",
	} {
		if err := CheckRegular(mode); err == nil || err.Error() != want {
			t.Errorf("%v: got %v, want %s", mode, err, want)
		}
	}
	if err := CheckRegular(fs.ModeSetuid | fs.ModeSticky | 0o755); err != nil {
		t.Error(err)
	}
}

func TestOpenRegular(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	newFile(t, path)
	f, err := OpenRegular(path, os.O_RDWR, os.Lstat)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	wantErr := func(path string) error {
		t.Helper()
		f, err := OpenRegular(path, os.O_RDWR, os.Stat)
		var pathErr *fs.PathError
		if f != nil || !errors.As(err, &pathErr) || pathErr.Op != "open" || pathErr.Path != path {
			t.Errorf("%s: %v, %v", path, f, err)
		}
		return err
	}
	if err := wantErr(dir); !strings.Contains(err.Error(), "is a directory") {
		t.Error(err)
	}
	if err := wantErr(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	wantErr(path + string(os.PathSeparator))
}

// TestOpenRegularChecksWhatItOpened has another file kind take the place of the
// file after the first look.
func TestOpenRegularChecksWhatItOpened(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	newFile(t, path)
	f, err := OpenRegular(dir, os.O_RDONLY, func(string) (fs.FileInfo, error) { return os.Lstat(path) })
	if f != nil || err == nil || !strings.HasSuffix(err.Error(), "is a directory, not a regular file") {
		t.Error(f, err)
	}
}
