package atpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestCheckRegular(t *testing.T) {
	for mode, want := range map[fs.FileMode]struct {
		text string
		err  error
	}{
		fs.ModeDir | 0o755:                  {"is a directory, not a regular file", syscall.EISDIR},
		fs.ModeSymlink:                      {"is a symbolic link, not a regular file", errLink},
		fs.ModeNamedPipe | 0o600:            {"is a FIFO, not a regular file", syscall.EINVAL},
		fs.ModeSocket:                       {"is a socket, not a regular file", syscall.EINVAL},
		fs.ModeDevice:                       {"is a device, not a regular file", syscall.EINVAL},
		fs.ModeDevice | fs.ModeCharDevice:   {"is a device, not a regular file", syscall.EINVAL},
		fs.ModeIrregular:                    {"is not a regular file", syscall.EINVAL},
		fs.ModeDir | fs.ModeSticky | 0o1777: {"is a directory, not a regular file", syscall.EISDIR},
	} {
		if err := CheckRegular(mode); err == nil || err.Error() != want.text || !errors.Is(err, want.err) {
			t.Errorf("%v: got %v, want %s", mode, err, want.text)
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
