package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenFileTruncatesUnderLock(t *testing.T) {
	for _, flag := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREATE, os.O_RDWR | os.O_CREATE} {
		path := newFile(t, "old")
		f := lockFile(t, path)
		second := make(chan *File, 1)
		opened := start(func() error {
			g, err := OpenFile(bg, path, flag|os.O_TRUNC, 0o600)
			second <- g
			return err
		})
		wantBlocked(t, opened)
		wantFile(t, path, "old")
		must(t, f.Close())
		must(t, finish(t, opened))
		g := <-second
		if info, err := g.Stat(); err != nil || info.Size() != 0 {
			t.Error(info, err)
		}
		must(t, g.Close())
		wantFile(t, path, "")
	}
}

func TestOpenFileFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if _, err := OpenFile(bg, path, os.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	f, err := OpenFile(bg, path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	f.WriteString("old")
	must(t, f.Close())
	if _, err := OpenFile(bg, path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	f, err = OpenFile(WithoutSync(bg), path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	f.WriteString(" and new")
	must(t, f.Close())
	wantFile(t, path, "old and new")
}

func TestOpenFileLocksNewFileShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	f, err := OpenFile(bg, path, os.O_CREATE, 0o600)
	must(t, err)
	other, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	must(t, f.Close())
	must(t, other.Close())
}

func TestFailedOpenFileLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	if _, err := OpenFile(bg, path, os.O_CREATE|os.O_TRUNC, 0o600); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	wantNoFile(t, path)
}

func TestFileClosedTwice(t *testing.T) {
	f := lockFile(t, newFile(t, ""))
	must(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}
