package interlock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/wine"
)

// replacements remove or replace a lock file. Later callers must use the file
// that is at the path, and all of them the same one.
var replacements = map[string]func(t *testing.T, path string){
	"removed": func(t *testing.T, path string) { remove(t, path) },
	"created again": func(t *testing.T, path string) {
		remove(t, path)
		must(t, os.WriteFile(path, nil, 0o600))
	},
	"renamed": func(t *testing.T, path string) { rename(t, path, path+".old") },
	"replaced": func(t *testing.T, path string) {
		must(t, os.WriteFile(path+".new", nil, 0o600))
		rename(t, path+".new", path)
	},
	"directory renamed": func(t *testing.T, path string) {
		dir := filepath.Dir(path)
		must(t, os.Rename(dir, dir+".old"))
		must(t, os.Mkdir(dir, 0o700))
		t.Cleanup(func() { os.RemoveAll(dir + ".old") })
		time.Sleep(2 * pathCheckInterval)
	},
}

// eachReplacement runs a test for each kind of replacement that the system has.
func eachReplacement(t *testing.T, test func(t *testing.T, path string, replace func())) {
	for name, replace := range replacements {
		switch {
		case name == "replaced" && wine.Here():
			t.Log("not tried: Wine does not replace an open file")
			continue
		case name == "directory renamed" && runtime.GOOS == "windows" && !wine.Here():
			continue // a directory with open files cannot be renamed
		}
		t.Run(name, func(t *testing.T) {
			path := lockPath(t)
			test(t, path, func() { replace(t, path) })
		})
	}
}

func TestFileReplacedWhileIdle(t *testing.T) {
	eachReplacement(t, func(t *testing.T, path string, replace func()) {
		m, p := newMutex(t, path), startLocker(t, path)
		settle(m)
		replace()
		p.Ask("lock", "lock ok")
		if m.TryLock() || m.TryRLock() {
			t.Error("the lock has two holders")
		}
		p.Ask("unlock", "unlock ok")
		if !m.TryLock() {
			t.Fatal("refused because of a file that is gone")
		}
		p.Ask("trylock", "trylock lock")
		m.Unlock()
	})
}

func TestFileReplacedWhileHeld(t *testing.T) {
	eachReplacement(t, func(t *testing.T, path string, replace func()) {
		old, m, p := newMutex(t, path), newMutex(t, path), startLocker(t, path)
		settle(m)
		old.Lock()
		replace()
		p.Ask("trylock", "trylock ok") // the holder of the old file does not matter
		if m.TryLock() {
			t.Error("the lock has two holders")
		}
		p.Ask("unlock", "unlock ok")
		if !m.TryLock() {
			t.Fatal("refused because of a file that is gone")
		}
		old.Unlock()
		if old.TryLock() || old.TryRLock() {
			t.Error("the lock has two holders")
		}
		m.Unlock()
	})
}

// Readers of the old file do not let in another reader of their process.
func TestFileReplacedWhileReadLocked(t *testing.T) {
	eachReplacement(t, func(t *testing.T, path string, replace func()) {
		old, m := newMutex(t, path), newMutex(t, path)
		settle(old)
		old.RLock()
		replace()
		m.Lock()
		time.Sleep(time.Millisecond) // old remembers for a moment that no process waits
		if old.TryRLock() {
			t.Error("a reader joined a lock on a file that is gone")
		}
		reader := start(func() error { old.RLock(); return nil })
		writer := start(func() error { old.Lock(); old.Unlock(); return nil })
		pending(t, reader)
		old.RUnlock()
		pending(t, reader)
		m.Unlock()
		must(t, finish(t, reader))
		old.RUnlock()
		must(t, finish(t, writer))
	})
}

func TestFileReplacedWhileWaitedFor(t *testing.T) {
	eachReplacement(t, func(t *testing.T, path string, replace func()) {
		old, m, p := newMutex(t, path), newMutex(t, path), startLocker(t, path)
		settle(m)
		old.Lock()
		waiter := start(func() error {
			for {
				// A waiter that polls may look while there is no directory.
				if err := m.LockContext(t.Context()); !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
		})
		pending(t, waiter)
		replace()
		p.Say("lock")
		for line, ok := p.Line(moment); line != "lock ok"; line, ok = p.Line(moment) {
			if ok {
				t.Fatal(line)
			}
			select {
			case err := <-waiter: // a waiter that polls notices before the old file is unlocked
				must(t, err)
				m.Unlock()
				p.Expect("lock ok")
				p.Ask("unlock", "unlock ok")
				old.Unlock()
				return
			default:
			}
		}
		old.Unlock()
		pending(t, waiter) // it got the lock of the old file, which does not count
		p.Ask("unlock", "unlock ok")
		must(t, finish(t, waiter))
		p.Ask("trylock", "trylock lock")
		m.Unlock()
	})
}

// Without the directory locking fails, and works again once the directory is
// back.
func TestParentRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(dir, 0o700))
	path := filepath.Join(dir, "lock")
	m := newMutex(t, path)
	must(t, os.RemoveAll(dir))
	var pathErr *fs.PathError
	if err := m.LockContext(t.Context()); !errors.As(err, &pathErr) || pathErr.Path != path || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LockContext = %v", err)
	}
	if err, _ := panicOf(m.Lock).(error); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lock panicked with %v", err)
	}
	must(t, os.Mkdir(dir, 0o700))
	m.Lock()
	m.Unlock()
}
