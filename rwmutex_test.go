package interlock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOtherNamesOfTheFileAreTheSameLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	m := newMutex(t, path)
	m.Lock()
	defer m.Unlock()
	link, alias := filepath.Join(dir, "hardlink"), filepath.Join(t.TempDir(), "dir")
	must(t, os.Link(path, link))
	symlink(t, dir, alias)
	t.Chdir(dir)
	for _, name := range []string{link, "lock", "./lock", dir + "/../" + filepath.Base(dir) + "/lock", filepath.Join(alias, "lock")} {
		other := newMutex(t, name)
		t.Chdir(t.TempDir()) // a relative path is resolved by the constructor
		if other.TryLock() {
			t.Errorf("%s is another lock", name)
			other.Unlock()
		}
		if other.Path() != name {
			t.Errorf("Path() = %q, want %q", other.Path(), name)
		}
		t.Chdir(dir)
	}
}

// wantPathError fails unless err is an error of the operation on the path, and
// matches want.
func wantPathError(t *testing.T, err error, op, path string, want error) {
	t.Helper()
	var pathErr *fs.PathError
	if !errors.Is(err, want) || !errors.As(err, &pathErr) || pathErr.Op != op || pathErr.Path != path {
		t.Errorf("%v, want %s %s: %v", err, op, path, want)
	}
}

// panicOf returns the value of the panic of call, or nil.
func panicOf(call func()) (value any) {
	defer func() { value = recover() }()
	call()
	return nil
}

func TestErrorsNameTheOperationAndThePath(t *testing.T) {
	path := lockPath(t)
	m, err := NewFileRWMutex(path)
	must(t, err)
	other := newMutex(t, path)
	for what, call := range map[string]func(){"Unlock of FileRWMutex not locked for writing": m.Unlock, "RUnlock of FileRWMutex not locked for reading": m.RUnlock} {
		if text, _ := panicOf(call).(string); !strings.Contains(text, what) || !strings.Contains(text, path) {
			t.Errorf("panic %q, want %q and the path", text, what)
		}
	}
	other.Lock()
	wantPathError(t, m.TryLockContext(t.Context()), "lock", path, ErrLocked)
	wantPathError(t, m.TryRLockContext(t.Context()), "rlock", path, ErrLocked)
	other.Unlock()
	m.RLock()
	wantPathError(t, m.Close(), "close", path, errInUse)
	m.RUnlock()

	must(t, m.Close())
	wantPathError(t, m.Close(), "close", path, fs.ErrClosed)
	wantPathError(t, m.LockContext(t.Context()), "lock", path, fs.ErrClosed)
	wantPathError(t, m.RLockContext(t.Context()), "rlock", path, fs.ErrClosed)
	for op, call := range map[string]func(){"lock": m.Lock, "rlock": m.RLock} {
		err, _ := panicOf(call).(error)
		wantPathError(t, err, op, path, fs.ErrClosed)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("Close removed the file:", err)
	}
}

// A Lock call that runs while Close closes the file does not get the lock.
func TestLockDuringClose(t *testing.T) {
	path := lockPath(t)
	m, err := NewFileRWMutex(path)
	must(t, err)
	must(t, m.retire()) // the first half of Close
	wantPathError(t, m.LockContext(t.Context()), "lock", path, fs.ErrClosed)
	wantPathError(t, m.TryRLockContext(t.Context()), "rlock", path, fs.ErrClosed)
	m.file.close()
}

func TestLockFileIsNotChanged(t *testing.T) {
	path := lockPath(t)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	must(t, os.Chtimes(path, old, old))
	before := Must(os.Stat(path))
	m := newMutex(t, path, WithPerm(0o644))
	m.Lock()
	m.Unlock()
	m.RLock()
	m.RUnlock()
	after := Must(os.Stat(path))
	if !os.SameFile(before, after) || before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) || after.Size() != 8 {
		t.Errorf("the file was: %v %v, is: %v %v", before.Mode(), before.ModTime(), after.Mode(), after.ModTime())
	}
}

func TestInvalidOptions(t *testing.T) {
	path := lockPath(t)
	for name, opt := range map[string]Option{
		"permissions":   WithPerm(fs.ModeSetuid | 0o600),
		"no interval":   WithPollInterval(0, time.Second),
		"max below min": WithPollInterval(time.Second, time.Millisecond),
	} {
		m, err := NewFileRWMutex(path, opt)
		if m != nil {
			t.Errorf("%s: a FileRWMutex was made", name)
		}
		wantPathError(t, err, "open", path, fs.ErrInvalid)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file was created")
	}
}

func TestMust(t *testing.T) {
	if Must(1, nil) != 1 {
		t.Error("Must(1, nil) != 1")
	}
	if value := panicOf(func() { Must(1, fs.ErrInvalid) }); value != fs.ErrInvalid {
		t.Errorf("Must panicked with %v, want the error", value)
	}
}
