package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock"
)

func TestReadWaitsForWritersOnly(t *testing.T) {
	path := newFile(t, "old")
	reader, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	if data, err := Read(bg, path); err != nil || string(data) != "old" {
		t.Error(data, err)
	}
	written := start(func() error { return Write(bg, path, []byte("new"), 0) })
	wantBlocked(t, written)
	must(t, reader.Close())
	must(t, finish(t, written))

	f := lockFile(t, path)
	read := start(func() error {
		data, err := Read(bg, path)
		if string(data) != "newer" {
			t.Errorf("%q", data)
		}
		return err
	})
	wantBlocked(t, read)
	f.WriteString("newer")
	must(t, f.Close())
	must(t, finish(t, read))
}

func TestTryWriteDoesNotWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	must(t, TryWrite(path, []byte("one"), 0o600))
	must(t, TryWrite(path, []byte("two"), 0o600))
	f := lockFile(t, path)
	err := TryWrite(path, []byte("three"), 0o600)
	var pathErr *fs.PathError
	if !errors.Is(err, interlock.ErrLocked) || !errors.As(err, &pathErr) {
		t.Error(err)
	}
	must(t, f.Close())
	wantFile(t, path, "two")
}

func TestAppendLeavesFileInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	must(t, Append(bg, path, []byte("one"), 0o600))
	first, err := os.Stat(path)
	must(t, err)
	must(t, Append(WithoutSync(bg), path, []byte("two"), 0))
	wantFile(t, path, "onetwo")
	if second, err := os.Stat(path); err != nil || !os.SameFile(first, second) {
		t.Error("replaced", err)
	}
}

func TestTransformHoldsLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	calls := 0
	must(t, Transform(bg, path, 0o640, func(old []byte) ([]byte, error) {
		calls++
		if len(old) != 0 {
			t.Errorf("%q", old)
		}
		if err := TryWrite(path, nil, 0); !errors.Is(err, interlock.ErrLocked) {
			t.Error("not locked:", err)
		}
		return []byte("new"), nil
	}))
	wantFile(t, path, "new")
	wantMode(t, path, 0o640)
	if calls != 1 {
		t.Errorf("called %d times", calls)
	}
}

func TestFailedTransformChangesNothing(t *testing.T) {
	failure := errors.New("failure")
	for name, transform := range map[string]func(t *testing.T, path string){
		"error": func(t *testing.T, path string) {
			if err := Transform(bg, path, 0o600, func([]byte) ([]byte, error) { return []byte("new"), failure }); err != failure {
				t.Error(err)
			}
		},
		"panic": func(t *testing.T, path string) {
			defer func() {
				if got := recover(); got != failure {
					t.Error(got)
				}
			}()
			Transform(bg, path, 0o600, func(old []byte) ([]byte, error) { clear(old); panic(failure) })
		},
		"JSON error": func(t *testing.T, path string) {
			if err := TransformJSON(bg, path, 0o600, func(n *int) error { *n = 5; return failure }); err != failure {
				t.Error(err)
			}
		},
		"not JSON": func(t *testing.T, path string) {
			var pathErr *fs.PathError
			err := TransformJSON(bg, path, 0o600, func(v *any) error { *v = make(chan int); return nil })
			if !errors.As(err, &pathErr) || pathErr.Path != path {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t, "1")
			transform(t, path)
			wantFile(t, path, "1")
			wantUnlocked(t, path)
			missing := filepath.Join(t.TempDir(), "missing")
			transform(t, missing)
			if runtime.GOOS == "windows" { // An open file cannot be removed.
				wantFile(t, missing, "")
			} else {
				wantNoFile(t, missing)
			}
			wantNoTemp(t, missing)
		})
	}
}

func TestTransformToSameWritesNothing(t *testing.T) {
	path := newFile(t, "same")
	before, err := os.Stat(path)
	must(t, err)
	must(t, Transform(bg, path, 0, func(old []byte) ([]byte, error) { return old, nil }))
	after, err := os.Stat(path)
	must(t, err)
	if !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
		t.Error("written")
	}
	// These contents are new, although f returns its argument.
	must(t, Transform(bg, path, 0, func(old []byte) ([]byte, error) { old[0] = 'g'; return old, nil }))
	wantFile(t, path, "game")
}

func TestErrorNamesCallAndPath(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, Write(bg, "data", nil, 0o600))
	lockFile(t, "data")
	err := TryWrite("data", nil, 0)
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Op != "write" || pathErr.Path != "data" || pathErr.Err != interlock.ErrLocked {
		t.Errorf("%#v", err)
	}
}
