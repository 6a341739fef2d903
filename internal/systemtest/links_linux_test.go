package systemtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// These tests are about SECURITY.md: what another user can do who may write to
// the directory of a lock file.

// SECURITY.md: a symbolic link in the place of a file is not followed.
func TestPlantedLinkIsNotFollowed(t *testing.T) {
	localAndRemote(t, func(t *testing.T, dir string) {
		for _, name := range []string{"lock", "lock.gate", "sem.gate.lock", "sem.queue.lock", "sem.00.lock"} {
			for _, target := range []string{"existing", "missing"} {
				t.Run(name+"/"+target, func(t *testing.T) {
					dir := filepath.Join(dir, name+"-"+target)
					kit.Must(t, os.Mkdir(dir, 0o700))
					elsewhere := t.TempDir()
					kit.Must(t, os.WriteFile(filepath.Join(elsewhere, "existing"), []byte("precious"), 0o644))
					kit.Must(t, os.Symlink(filepath.Join(elsewhere, target), filepath.Join(dir, name)))
					before := kit.Listing(t, elsewhere)
					switch name {
					case "lock":
						if _, err := interlock.NewFileRWMutex(filepath.Join(dir, "lock")); !errors.Is(err, unix.ELOOP) {
							t.Error(err)
						}
					case "lock.gate":
						waitInVain(t, filepath.Join(dir, "lock"))
					default:
						if _, err := interlock.NewFileSemaphore(filepath.Join(dir, "sem"), 1); !errors.Is(err, unix.ELOOP) {
							t.Error(err)
						}
					}
					if after := kit.Listing(t, elsewhere); after != before {
						t.Errorf("the target was:\n%s\nis:\n%s", before, after)
					}
				})
			}
		}
	})
}

// waitInVain holds a lock and waits for it. Neither needs the gate.
func waitInVain(t *testing.T, path string) {
	t.Helper()
	m, other := newMutex(t, path), newMutex(t, path)
	m.Lock()
	defer m.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := other.LockContext(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
}

// SECURITY.md: another file in the place of a file is locked, but not written
// to, whether it was there first or replaced one that is in use.
func TestPlantedFileIsNotWrittenTo(t *testing.T) {
	contents := map[string]string{
		"text":          "precious\n",
		"digits":        "123456789012345678901",
		"zeros":         string(make([]byte, 4096)),
		"size and more": "2\n\nten in my life",
	}
	localAndRemote(t, func(t *testing.T, dir string) {
		for _, name := range []string{"lock", "lock.gate", "sem.queue.lock", "sem.00.lock", "sem.gate.lock"} {
			for what, contents := range contents {
				t.Run(name+"/"+what, func(t *testing.T) {
					dir := filepath.Join(dir, name+"-"+what)
					kit.Must(t, os.Mkdir(dir, 0o700))
					p := planted{path: filepath.Join(dir, name), contents: contents}
					p.plant(t)
					switch name {
					case "lock", "lock.gate":
						lockAndWait(t, filepath.Join(dir, "lock"))
					case "sem.queue.lock", "sem.00.lock":
						acquireAndWait(t, filepath.Join(dir, "sem"))
					default:
						gateIsRefused(t, filepath.Join(dir, "sem"), &p)
					}
					p.wantUnchanged(t)
				})
			}
		}
	})
}

// A planted file is one that an attacker put in the place of another.
type planted struct {
	path, contents, before string
}

func (p *planted) plant(t *testing.T) {
	t.Helper()
	other := p.path + ".new"
	kit.Must(t, os.WriteFile(other, []byte(p.contents), 0o640))
	kit.Must(t, os.Rename(other, p.path))
	p.before = kit.Listing(t, p.path)
}

func (p *planted) wantUnchanged(t *testing.T) {
	t.Helper()
	if after := kit.Listing(t, p.path); after != p.before {
		t.Errorf("the file was:\n%s\nis:\n%s", p.before, after)
	}
	if data := interlock.Must(os.ReadFile(p.path)); string(data) != p.contents {
		t.Errorf("the file contains %q, want %q", data, p.contents)
	}
}

// gateIsRefused expects errors for a gate file that does not contain a size.
func gateIsRefused(t *testing.T, name string, p *planted) {
	t.Helper()
	wantError := func(err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), p.path+": does not contain the size of a semaphore") {
			t.Error(err)
		}
	}
	_, err := interlock.NewFileSemaphore(name, 2)
	wantError(err)
	p.wantUnchanged(t)
	kit.Must(t, os.Remove(p.path))
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 1, true)
	p.plant(t)
	time.Sleep(time.Millisecond) // so that Acquire looks at the gate again
	wantError(s.Acquire(t.Context(), 1))
	s.Release(1)
}

// lockAndWait uses all files of a FileRWMutex.
func lockAndWait(t *testing.T, path string) {
	t.Helper()
	m, other := newMutex(t, path), newMutex(t, path)
	m.Lock()
	waiter := locking(t.Context(), other)
	kit.Pending(t, waiter)
	m.Unlock()
	kit.Must(t, kit.Finish(t, waiter))
	other.Unlock()
}

// acquireAndWait uses all files of a FileSemaphore.
func acquireAndWait(t *testing.T, name string) {
	t.Helper()
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	waiter := acquiring(t.Context(), other, 1)
	kit.WaitFor(t, "a process has the turn", func() bool {
		h, err := interlock.Holders(name + ".queue.lock")
		kit.Must(t, err)
		return len(h) == 1
	})
	kit.Pending(t, waiter)
	s.Release(2)
	kit.Must(t, kit.Finish(t, waiter))
	other.Release(1)
}

// SECURITY.md: a user who may write to the gate of a semaphore can bring about
// that two sizes are in use. Even so, no unit is in use twice, nor more units
// than the larger size. The locks bind only those who ask for them.
func TestWriterOfGateCanChangeSize(t *testing.T) {
	name := filepath.Join(t.TempDir(), "sem")
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	if _, err := interlock.NewFileSemaphore(name, 5); err == nil {
		t.Fatal("two sizes are in use")
	}
	kit.Must(t, os.WriteFile(name+".gate.lock", []byte("5\n"), 0o600))
	larger := newSemaphore(t, name, 5)
	wantTry(t, larger, 4, false)
	wantTry(t, larger, 3, true)
	s.Release(2)
	wantTry(t, larger, 2, true)
	wantTry(t, s, 1, false)
	larger.Release(5)
}
