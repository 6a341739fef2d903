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

// lockRange acquires an exclusive lock on bytes of a file, as other programs
// do.
func lockRange(f *os.File, offset, n uint64) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, uint32(n), uint32(n>>32), overlappedAt(offset))
}

func rLockRange(f *os.File, offset, n uint64) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, uint32(n), uint32(n>>32), overlappedAt(offset))
}

func unlockRange(f *os.File, offset, n uint64) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, uint32(n), uint32(n>>32), overlappedAt(offset))
}

// Other programs rely on which bytes are locked.
func TestLockedByte(t *testing.T) {
	f, g := openTwice(t)
	m := newMutex(t, f.Name())
	// cmd/go's lockedfile locks all possible bytes.
	must(t, lockRange(f, 0, math.MaxUint64))
	if m.TryLock() || m.TryRLock() || TryLock(g) == nil {
		t.Error("the lock is held beside cmd/go")
	}
	waiter := locking(t.Context(), m)
	pending(t, waiter)
	must(t, unlockRange(f, 0, math.MaxUint64))
	must(t, finish(t, waiter))
	if lockRange(f, 0, math.MaxUint64) == nil {
		t.Error("cmd/go holds the lock, too")
	}
	// The contents are not locked, nor the first bytes, which gofrs/flock
	// locks.
	must(t, lockRange(f, 0, 1))
	must(t, unlockRange(f, 0, 1))
	if lockRange(f, 1<<62, 1) == nil {
		t.Error("the byte at 1<<62 is not locked")
	}
	if TryLock(g) == nil {
		t.Error("the lock has two holders")
	}
	m.Unlock()
	must(t, TryLock(g))
	if m.TryLock() {
		t.Error("the lock of an open file is another one")
	}
	must(t, Unlock(g))
}

// otherRanges are the bytes that other programs lock.
var otherRanges = map[string]struct{ offset, n uint64 }{
	"gofrs/flock, filelock": {0, 1},
	"msvcrt.locking":        {0, 0x10000},          // portalocker, at least this many
	"LockFileEx":            {0, 0xffff0000 << 32}, // portalocker with pywin32
	"cmd/go's lockedfile":   {0, math.MaxUint64},
	"interlock":             {1 << 62, 1},
}

// With WithWholeFile, all other programs take part in the lock.
func TestWithWholeFile(t *testing.T) {
	for name, r := range otherRanges {
		t.Run(name, func(t *testing.T) {
			f, _ := openTwice(t)
			m := newMutex(t, f.Name(), WithWholeFile())
			must(t, rLockRange(f, r.offset, r.n))
			if m.TryLock() {
				t.Error("a writer holds the lock beside another program that reads")
			}
			if !m.TryRLock() {
				t.Fatal("readers do not share the lock with another program")
			}
			must(t, unlockRange(f, r.offset, r.n))
			if lockRange(f, r.offset, r.n) == nil {
				t.Error("another program writes beside a reader")
			}
			must(t, rLockRange(f, r.offset, r.n))
			must(t, unlockRange(f, r.offset, r.n))
			m.RUnlock()

			must(t, lockRange(f, r.offset, r.n))
			if m.TryLock() || m.TryRLock() {
				t.Error("the lock is held beside another program that writes")
			}
			waiter := locking(t.Context(), m)
			pending(t, waiter)
			must(t, unlockRange(f, r.offset, r.n))
			must(t, finish(t, waiter))
			if lockRange(f, r.offset, r.n) == nil || rLockRange(f, r.offset, r.n) == nil {
				t.Error("another program has the lock beside a writer")
			}
			m.Unlock()
			must(t, lockRange(f, r.offset, r.n))
			must(t, unlockRange(f, r.offset, r.n))
		})
	}
}

func TestWithWholeFileForOtherTypes(t *testing.T) {
	f, _ := openTwice(t)
	m := Must(NewFileRMutex(f.Name(), WithWholeFile()))
	defer m.Close()
	o := NewOwner()
	must(t, lockRange(f, 0, 1))
	if m.TryLock(o) {
		t.Error("a FileRMutex is locked beside another program")
	}
	must(t, unlockRange(f, 0, 1))
	m.Lock(o)
	if lockRange(f, 0, 1) == nil {
		t.Error("another program has the lock beside a FileRMutex")
	}
	m.Unlock(o)

	name := lockPath(t)
	s := Must(NewFileSemaphore(name, 1, WithWholeFile()))
	defer s.Close()
	g := Must(os.OpenFile(name+".00.lock", os.O_RDWR|os.O_CREATE, 0o600))
	defer g.Close()
	must(t, lockRange(g, 0, 1))
	if s.TryAcquire(1) {
		t.Error("too many units are in use")
	}
	must(t, unlockRange(g, 0, 1))
	must(t, s.Acquire(t.Context(), 1))
	if lockRange(g, 0, 1) == nil {
		t.Error("another program has the slot beside a FileSemaphore")
	}
	s.Release(1)
}

// The gate of a lock of the whole file is not part of that lock.
func TestWithWholeFileHasGate(t *testing.T) {
	f, g := openTwice(t)
	m, other := newMutex(t, f.Name(), WithWholeFile()), newMutex(t, f.Name(), WithWholeFile())
	m.RLock()
	writer := locking(t.Context(), other)
	waitFor(t, "a writer stands at the gate", func() bool { return taken(m.file, shared) })
	pending(t, writer) // it stands there to wait, and not for an instant to ask
	if rLockRange(g, farByte, 1) == nil {
		t.Fatal("the gate is another byte")
	}
	if newMutex(t, f.Name(), WithWholeFile()).TryRLock() {
		t.Error("a reader overtakes a writer")
	}
	m.RUnlock()
	must(t, finish(t, writer))
	must(t, rLockRange(g, farByte, 1))
	must(t, unlockRange(g, farByte, 1))
	other.Unlock()
}

// A lock of the whole file is mandatory for the contents.
func TestWithWholeFileLocksContents(t *testing.T) {
	f, _ := openTwice(t)
	m := newMutex(t, f.Name(), WithWholeFile())
	_, err := f.WriteString("contents")
	must(t, err)
	wine.Skip(t, "lets other programs read and write locked bytes")
	m.RLock()
	if data, err := os.ReadFile(f.Name()); string(data) != "contents" || err != nil {
		t.Errorf("a read-locked file: %q, %v", data, err)
	}
	if _, err := f.WriteString("contents"); !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		t.Error("a read-locked file can be written:", err)
	}
	m.RUnlock()
	m.Lock()
	if _, err := os.ReadFile(f.Name()); !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		t.Error("a locked file can be read:", err)
	}
	m.Unlock()
	_, err = f.WriteString("contents")
	must(t, err)
}

// Locks are mandatory on Windows. The contents of a locked file can be read and
// written all the same.
func TestContentsAreNotLocked(t *testing.T) {
	f, g := openTwice(t)
	must(t, TryLock(f))
	_, err := g.WriteString("contents")
	must(t, err)
	data, err := os.ReadFile(f.Name())
	if string(data) != "contents" || err != nil {
		t.Errorf("a locked file: %q, %v", data, err)
	}
	// This is what would happen otherwise.
	wine.Skip(t, "lets other programs read locked bytes")
	must(t, lockRange(f, 0, 1))
	if _, err := os.ReadFile(f.Name()); !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		t.Error("a locked byte can be read:", err)
	}
}

// A file that was opened for overlapped calls can be locked.
func TestOverlappedFile(t *testing.T) {
	f, g := openTwice(t)
	o, err := os.OpenFile(f.Name(), os.O_RDWR|windows.FILE_FLAG_OVERLAPPED, 0)
	must(t, err)
	defer o.Close()
	for range 100 {
		must(t, TryLock(o))
		if !errors.Is(TryLock(g), ErrLocked) {
			t.Fatal("the file is not locked")
		}
		must(t, Unlock(o))
		must(t, TryLock(g))
		if !errors.Is(TryLock(o), ErrLocked) {
			t.Fatal("the lock has two holders")
		}
		must(t, Unlock(g))
	}
}

// Another process may have the file open and not share it. A constructor waits
// for it for a while.
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

func TestConstructorRefusesOtherFilesOnWindows(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{
		dir:                                     errNotRegular,
		dir + `\`:                               syscall.EISDIR,
		filepath.Join(dir, "lock") + "/":        syscall.EISDIR,
		"NUL":                                   errNotRegular,
		filepath.Join(dir, "missing", "lock"):   fs.ErrNotExist,
		filepath.Join(dir, "no:such", "stream"): nil, // or another error of the system
		filepath.Join(dir, "quest?on"):          nil,
	} {
		m, err := NewFileRWMutex(path)
		var pathErr *fs.PathError
		if m != nil || !errors.As(err, &pathErr) || pathErr.Path != path || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if left := Must(os.ReadDir(dir)); len(left) != 0 {
		t.Error("files were created:", left)
	}
}

// A junction, like every reparse point, is not followed in the place of the
// file.
func TestConstructorRefusesJunction(t *testing.T) {
	wine.Skip(t, "has no junctions")
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "junction")
	if out, err := exec.Command("cmd", "/c", "mklink", "/J", link, dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := NewFileRWMutex(link); !errors.Is(err, errNotRegular) {
		t.Error(err)
	}
	newMutex(t, filepath.Join(link, "lock")) // it is followed on the way to the file
}

// A removed file can keep its name until all processes have closed it. A
// process that locks such a file closes it, and makes a new one.
func TestRemovedFileThatKeepsItsName(t *testing.T) {
	wine.Skip(t, "removes the name at once, or keeps it in use")
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	name, err := windows.UTF16PtrFromString(path)
	must(t, err)
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, windows.DELETE, share, nil, windows.OPEN_EXISTING, 0, 0)
	must(t, err)
	yes := byte(1) // FILE_DISPOSITION_INFO, without the semantics of POSIX
	must(t, windows.SetFileInformationByHandle(h, windows.FileDispositionInfo, &yes, 1))
	windows.CloseHandle(h)

	waiter := locking(t.Context(), other)
	must(t, m.LockContext(t.Context())) // otherwise other would wait forever
	m.Unlock()
	must(t, finish(t, waiter))
	other.Unlock()
	m.Lock()
	if other.TryLock() {
		t.Error("two files of one name are locked")
	}
	m.Unlock()
}
