package interlock

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/wine"
	"golang.org/x/sys/windows"
)

// lockRange takes an exclusive lock on bytes of a file as other programs do.
func lockRange(f *os.File, offset, n uint64) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, uint32(n), uint32(n>>32), byteAt(offset))
}

func rLockRange(f *os.File, offset, n uint64) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, uint32(n), uint32(n>>32), byteAt(offset))
}

func unlockRange(f *os.File, offset, n uint64) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, uint32(n), uint32(n>>32), byteAt(offset))
}

// Which bytes are locked is for others to rely on.
func TestRanges(t *testing.T) {
	f, g := openTwice(t)
	m := newMutex(t, f.Name())
	// cmd/go's lockedfile locks all there can be.
	must(t, lockRange(f, 0, math.MaxUint64))
	if m.TryLock() || m.TryRLock() || TryLock(g) == nil {
		t.Error("locked beside cmd/go")
	}
	waiter := start(func() error { return m.LockContext(t.Context()) })
	pending(t, waiter)
	must(t, unlockRange(f, 0, math.MaxUint64))
	must(t, finish(t, waiter))
	if lockRange(f, 0, math.MaxUint64) == nil {
		t.Error("cmd/go locks beside us")
	}
	// The contents are free, and so are the bytes of gofrs/flock and others who lock the first.
	must(t, lockRange(f, 0, 1))
	must(t, unlockRange(f, 0, 1))
	if lockRange(f, 1<<62, 1) == nil {
		t.Error("another byte is locked than is said")
	}
	if TryLock(g) == nil {
		t.Error("locked twice")
	}
	m.Unlock()
	must(t, TryLock(g))
	if m.TryLock() {
		t.Error("an open file's lock is another one")
	}
	must(t, Unlock(g))
}

// foreignRanges is what others lock of a file.
var foreignRanges = map[string]struct{ offset, n uint64 }{
	"gofrs/flock, filelock": {0, 1},
	"msvcrt.locking":        {0, 0x10000},          // portalocker, at least so much
	"LockFileEx":            {0, 0xffff0000 << 32}, // portalocker, with pywin32
	"cmd/go's lockedfile":   {0, math.MaxUint64},
	"interlock":             {1 << 62, 1},
}

// With WithWholeFile all take part in the same lock.
func TestWholeFile(t *testing.T) {
	for name, r := range foreignRanges {
		t.Run(name, func(t *testing.T) {
			f, _ := openTwice(t)
			m := newMutex(t, f.Name(), WithWholeFile())
			must(t, rLockRange(f, r.offset, r.n))
			if m.TryLock() {
				t.Error("locked beside a reader")
			}
			if !m.TryRLock() {
				t.Fatal("not shared")
			}
			must(t, unlockRange(f, r.offset, r.n))
			if lockRange(f, r.offset, r.n) == nil {
				t.Error("a writer locks beside us")
			}
			must(t, rLockRange(f, r.offset, r.n))
			must(t, unlockRange(f, r.offset, r.n))
			m.RUnlock()

			must(t, lockRange(f, r.offset, r.n))
			if m.TryLock() || m.TryRLock() {
				t.Error("locked beside a writer")
			}
			waiter := start(func() error { return m.LockContext(t.Context()) })
			pending(t, waiter)
			must(t, unlockRange(f, r.offset, r.n))
			must(t, finish(t, waiter))
			if lockRange(f, r.offset, r.n) == nil || rLockRange(f, r.offset, r.n) == nil {
				t.Error("locked beside us")
			}
			m.Unlock()
			must(t, lockRange(f, r.offset, r.n))
			must(t, unlockRange(f, r.offset, r.n))
		})
	}
}

func TestWholeFileOfTheOthers(t *testing.T) {
	f, _ := openTwice(t)
	m := Must(NewFileRMutex(f.Name(), WithWholeFile()))
	defer m.Close()
	o := NewOwner()
	must(t, lockRange(f, 0, 1))
	if m.TryLock(o) {
		t.Error("locked twice")
	}
	must(t, unlockRange(f, 0, 1))
	m.Lock(o)
	if lockRange(f, 0, 1) == nil {
		t.Error("locked beside us")
	}
	m.Unlock(o)

	name := lockPath(t)
	s := Must(NewFileSemaphore(name, 1, WithWholeFile()))
	defer s.Close()
	g := Must(os.OpenFile(name+".00.lock", os.O_RDWR|os.O_CREATE, 0o600))
	defer g.Close()
	must(t, lockRange(g, 0, 1))
	if s.TryAcquire(1) {
		t.Error("a unit too many")
	}
	must(t, unlockRange(g, 0, 1))
	must(t, s.Acquire(t.Context(), 1))
	if lockRange(g, 0, 1) == nil {
		t.Error("a slot is locked beside us")
	}
	s.Release(1)
}

// The gate of a lock of the whole file is outside of it.
func TestWholeFileHasAGate(t *testing.T) {
	f, g := openTwice(t)
	m, other := newMutex(t, f.Name(), WithWholeFile()), newMutex(t, f.Name(), WithWholeFile())
	m.RLock()
	writer := start(func() error { return other.LockContext(t.Context()) })
	waitFor(t, "a writer at the gate", func() bool { return m.file.gateTaken(shared) })
	pending(t, writer) // and not for an instant, only to ask
	if rLockRange(g, gateByte, 1) == nil {
		t.Fatal("the gate is elsewhere")
	}
	if newMutex(t, f.Name(), WithWholeFile()).TryRLock() {
		t.Error("a reader passes a writer")
	}
	m.RUnlock()
	must(t, finish(t, writer))
	must(t, rLockRange(g, gateByte, 1))
	must(t, unlockRange(g, gateByte, 1))
	other.Unlock()
}

// The price of WithWholeFile.
func TestWholeFileIsMandatory(t *testing.T) {
	f, _ := openTwice(t)
	m := newMutex(t, f.Name(), WithWholeFile())
	_, err := f.WriteString("contents")
	must(t, err)
	wine.Skip(t, "does not keep others from reading and writing what is locked")
	m.RLock()
	if data, err := os.ReadFile(f.Name()); string(data) != "contents" || err != nil {
		t.Error(data, err)
	}
	if _, err := f.WriteString("contents"); !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		t.Error("what is read-locked can be written:", err)
	}
	m.RUnlock()
	m.Lock()
	if _, err := os.ReadFile(f.Name()); !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		t.Error("what is locked can be read:", err)
	}
	m.Unlock()
	_, err = f.WriteString("contents")
	must(t, err)
}

// Locks are mandatory in Windows, and yet the contents of a locked file can be read and written.
func TestContentsAreNotLocked(t *testing.T) {
	f, g := openTwice(t)
	must(t, TryLock(f))
	_, err := g.WriteString("contents")
	must(t, err)
	data, err := os.ReadFile(f.Name())
	if string(data) != "contents" || err != nil {
		t.Error(data, err)
	}
	// What that is about:
	wine.Skip(t, "does not keep others from reading what is locked")
	must(t, lockRange(f, 0, 1))
	if _, err := os.ReadFile(f.Name()); !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		t.Error("a locked byte can be read:", err)
	}
}

// A file that was opened for overlapped calls is locked like any other.
func TestOverlappedFile(t *testing.T) {
	f, g := openTwice(t)
	o, err := os.OpenFile(f.Name(), os.O_RDWR|windows.FILE_FLAG_OVERLAPPED, 0)
	must(t, err)
	defer o.Close()
	for range 100 {
		must(t, TryLock(o))
		if !errors.Is(TryLock(g), ErrLocked) {
			t.Fatal("not locked")
		}
		must(t, Unlock(o))
		must(t, TryLock(g))
		if !errors.Is(TryLock(o), ErrLocked) {
			t.Fatal("locked twice")
		}
		must(t, Unlock(g))
	}
}

// Somebody has the file open and shares it with nobody: for a moment, or for long.
func TestFileThatIsNotShared(t *testing.T) {
	path := lockPath(t)
	name, err := windows.UTF16PtrFromString(path)
	must(t, err)
	h, err := windows.CreateFile(name, windows.GENERIC_WRITE, 0, nil, windows.CREATE_NEW, windows.FILE_ATTRIBUTE_NORMAL, 0)
	must(t, err)
	var pathErr *fs.PathError
	if _, err := NewFileRWMutex(path); !errors.As(err, &pathErr) || !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
		t.Error(err)
	}
	time.AfterFunc(moment, func() { windows.CloseHandle(h) })
	newMutex(t, path)
}

func TestRefusesInWindows(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{
		dir:                                     errNotRegular,
		dir + `\`:                               syscall.EISDIR,
		filepath.Join(dir, "lock") + "/":        syscall.EISDIR,
		"NUL":                                   errNotRegular,
		filepath.Join(dir, "missing", "lock"):   fs.ErrNotExist,
		filepath.Join(dir, "no:such", "stream"): nil, // or whatever the system says
		filepath.Join(dir, "quest?on"):          nil,
	} {
		m, err := NewFileRWMutex(path)
		var pathErr *fs.PathError
		if m != nil || !errors.As(err, &pathErr) || pathErr.Path != path || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left := Must(os.ReadDir(dir)); len(left) != 0 {
		t.Error("left: ", left)
	}
}

// A junction, and any other reparse point, is not followed if it is what should be the file.
func TestRefusesJunction(t *testing.T) {
	wine.Skip(t, "has no junctions")
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "junction")
	if out, err := exec.Command("cmd", "/c", "mklink", "/J", link, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := NewFileRWMutex(link); !errors.Is(err, errNotRegular) {
		t.Error(err)
	}
	newMutex(t, filepath.Join(link, "lock")) // on the way to the file it is
}

// A file was removed, and its name remains until all have closed it. Who locks it lets it go, and makes a new one.
func TestNameThatIsToGo(t *testing.T) {
	wine.Skip(t, "lets the name go, or remain in use")
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	name, err := windows.UTF16PtrFromString(path)
	must(t, err)
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, windows.DELETE, share, nil, windows.OPEN_EXISTING, 0, 0)
	must(t, err)
	yes := byte(1) // FILE_DISPOSITION_INFO: as it always was, and not as by POSIX
	must(t, windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &yes, 1))
	windows.CloseHandle(h)

	waiter := start(func() error { return other.LockContext(t.Context()) })
	must(t, m.LockContext(t.Context())) // or the other would wait in vain
	m.Unlock()
	must(t, finish(t, waiter))
	other.Unlock()
	m.Lock()
	if other.TryLock() {
		t.Error("two files of one name")
	}
	m.Unlock()
}
