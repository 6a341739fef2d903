package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/atpath"
)

func TestWaitersMoveOnToNewFile(t *testing.T) {
	needReplace(t)
	path := newFile(t, "1")
	f := lockFile(t, path)
	var all []<-chan error
	for range 5 {
		all = append(all, start(func() error { return Transform(bg, path, 0, addOne) }))
		all = append(all, start(func() error { return Append(bg, path, nil, 0) }))
		all = append(all, start(func() error { _, err := Read(bg, path); return err }))
	}
	for _, done := range all {
		wantBlocked(t, done)
	}
	other := newFile(t, "100")
	must(t, os.Rename(other, path))
	// A new call does not wait for the holder of the old file.
	must(t, TryWrite(path, []byte("200"), 0))
	must(t, f.Close())
	for _, done := range all {
		must(t, finish(t, done))
	}
	wantFile(t, path, "205")

	f = lockFile(t, path)
	appended := start(func() error { return Append(bg, path, []byte("6"), 0o600) })
	wantBlocked(t, appended)
	must(t, os.Remove(path))
	must(t, f.Close())
	must(t, finish(t, appended))
	wantFile(t, path, "6")
}

func TestTransformFailsIfFileIsReplaced(t *testing.T) {
	needReplace(t)
	path := newFile(t, "1")
	err := Transform(bg, path, 0, func(old []byte) ([]byte, error) {
		must(t, os.Remove(path))
		must(t, Write(bg, path, []byte("100"), 0o600))
		must(t, Transform(bg, path, 0, func([]byte) ([]byte, error) { return []byte("101"), nil }))
		return []byte("2"), nil
	})
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != path || !errors.Is(err, errReplaced) {
		t.Error(err)
	}
	wantFile(t, path, "101")
}

func TestOverwriteFailsIfFileIsReplaced(t *testing.T) {
	needReplace(t)
	path := newFile(t, "old")
	r := newRequest(bg, "write", path, 0)
	f, err := r.open(os.O_RDWR, nil)
	must(t, err)
	defer release(f.File)
	must(t, os.Rename(path, path+"2"))
	must(t, os.WriteFile(path, []byte("another"), 0o600))
	if err := r.overwrite(f, []byte("new")); err != errReplaced {
		t.Error(err)
	}
	wantFile(t, path, "another")
	wantFile(t, path+"2", "old")
}

func TestUnstableFileIsAnError(t *testing.T) {
	needReplace(t)
	path := newFile(t, "old")
	r := newRequest(bg, "read", path, 0)
	r.lock = func(*os.File) error {
		must(t, os.WriteFile(path+"2", nil, 0o600))
		return os.Rename(path+"2", path)
	}
	_, err := r.open(os.O_RDONLY, nil)
	var pathErr *fs.PathError
	if !errors.Is(err, atpath.ErrUnstable) || !errors.As(err, &pathErr) || pathErr.Op != "read" || pathErr.Path != path {
		t.Error(err)
	}
}

// TestHoldersOfTwoFilesAtOnePath has two processes work at one path. The first
// holds the lock of a file that was removed, the second the lock of the new
// file.
func TestHoldersOfTwoFilesAtOnePath(t *testing.T) {
	needReplace(t)
	path := newFile(t, "old")
	a, b := strings.Repeat("a", 3<<20), strings.Repeat("b", 8<<20)
	for range 5 {
		inside, proceed := make(chan bool), make(chan bool)
		first := start(func() error {
			return Transform(WithoutSync(bg), path, 0, func([]byte) ([]byte, error) {
				inside <- true
				<-proceed
				return []byte(a), nil
			})
		})
		<-inside
		must(t, os.Remove(path))
		must(t, Write(bg, path, []byte("old"), 0o600))
		second := start(func() error { return Write(WithoutSync(bg), path, []byte(b), 0) })
		close(proceed)
		for done := false; !done; {
			if info, err := os.Stat(path); err == nil && info.Size() != 3 && info.Size() != int64(len(b)) {
				t.Fatalf("the file has %d bytes, from the wrong holder", info.Size())
			}
			select {
			case err := <-second:
				must(t, err)
				done = true
			default:
			}
		}
		if err := finish(t, first); err == nil {
			t.Error("a change of a removed file succeeded")
		}
		wantFile(t, path, b)
	}
}
