//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// SECURITY.md: a symbolic link that somebody has put where a file of ours is to be leads nowhere.
func TestPlantedLinksAreNotFollowed(t *testing.T) {
	for _, name := range []string{"lock", "lock.gate", "sem.gate.lock", "sem.queue.lock", "sem.00.lock"} {
		for _, exists := range []bool{false, true} {
			dir := t.TempDir()
			elsewhere := t.TempDir()
			target := filepath.Join(elsewhere, "target")
			if exists {
				must(t, os.WriteFile(target, []byte("precious"), 0o644))
			}
			must(t, os.Symlink(target, filepath.Join(dir, name)))
			before := listing(t, elsewhere)
			switch name {
			case "lock":
				_, err := NewFileRWMutex(filepath.Join(dir, "lock"))
				if !errors.Is(err, unix.ELOOP) {
					t.Error(name, err)
				}
			case "lock.gate":
				asRemote(t)
				m, err := NewFileRWMutex(filepath.Join(dir, "lock"))
				must(t, err)
				other, err := NewFileRWMutex(filepath.Join(dir, "lock"))
				must(t, err)
				m.Lock() // which it can do without a gate, and so can who waits
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
				if err := other.LockContext(ctx); err != context.DeadlineExceeded {
					t.Error(err)
				}
				cancel()
				m.Unlock()
				must(t, other.Close())
				must(t, m.Close())
			default:
				_, err := NewFileSemaphore(filepath.Join(dir, "sem"), 1)
				if !errors.Is(err, unix.ELOOP) {
					t.Error(name, err)
				}
			}
			if after := listing(t, elsewhere); after != before {
				t.Errorf("%s: was:\n%s\nis:\n%s", name, before, after)
			}
		}
	}
}

// SECURITY.md: who may write to the directory can put another file there, of whomever, which is opened and locked, but
// not written to: not when it is there first, nor when it takes the place of one that is in use.
func TestPlantedFilesAreNotWrittenTo(t *testing.T) {
	for _, name := range []string{"lock", "lock.gate", "sem.gate.lock", "sem.queue.lock", "sem.00.lock"} {
		for what, contents := range map[string]string{"text": "precious\n", "digits": "123456789012345678901", "zeros": string(make([]byte, 4096)), "size and more": "2\n\nten in my life"} {
			t.Run(name+"/"+what, func(t *testing.T) {
				localAndRemote(t, func(t *testing.T) {
					dir := t.TempDir()
					elsewhere := t.TempDir()
					precious, planted := filepath.Join(elsewhere, "precious"), filepath.Join(dir, name)
					plant := func() (before string) {
						must(t, os.WriteFile(precious, []byte(contents), 0o640))
						must(t, os.Rename(precious, planted))
						return listing(t, planted)
					}
					unchanged := func(before string) {
						t.Helper()
						if after := listing(t, planted); after != before {
							t.Errorf("was:\n%s\nis:\n%s", before, after)
						}
						if data := Must(os.ReadFile(planted)); string(data) != contents {
							t.Errorf("it contains %q", data)
						}
					}
					before := plant()
					switch name {
					case "lock", "lock.gate":
						lockAndWait(t, filepath.Join(dir, "lock"))
						unchanged(before)
						return
					case "sem.queue.lock", "sem.00.lock":
						acquireAndWait(t, filepath.Join(dir, "sem"))
						unchanged(before)
						return
					}
					if _, err := NewFileSemaphore(filepath.Join(dir, "sem"), 2); !errors.Is(err, errNotSize) || !strings.Contains(err.Error(), planted) {
						t.Error(err)
					}
					unchanged(before)
					must(t, os.Remove(planted))
					s := newSemaphore(t, filepath.Join(dir, "sem"), 2)
					wantTry(t, s, 1, true)
					before = plant()
					time.Sleep(checkInterval)
					if err := s.Acquire(t.Context(), 1); !errors.Is(err, errNotSize) || !strings.Contains(err.Error(), planted) {
						t.Error(err)
					}
					s.Release(1)
					unchanged(before)
				})
			})
		}
	}
}

// lockAndWait does with a FileRWMutex what uses all its files.
func lockAndWait(t *testing.T, path string) {
	t.Helper()
	m, other := newMutex(t, path), newMutex(t, path)
	m.Lock()
	w := start(func() error { return other.LockContext(t.Context()) })
	pending(t, w)
	m.Unlock()
	must(t, finish(t, w))
	other.Unlock()
}

// acquireAndWait does with a FileSemaphore what uses all its files.
func acquireAndWait(t *testing.T, name string) {
	t.Helper()
	s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	w := acquiring(t.Context(), other, 1)
	becomesHead(t, other)
	s.Release(2)
	must(t, finish(t, w))
	other.Release(1)
}

// SECURITY.md: who may write to the gate of a semaphore can have two sizes in use at once, but no more units than the larger
// of them, and none twice. The locks bind only those who ask for them.
func TestWhoMayWriteToTheGateMaySetTheSize(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	if _, err := NewFileSemaphore(name, 5); err == nil {
		t.Fatal("two sizes without more ado")
	}
	must(t, os.WriteFile(name+".gate.lock", []byte("5\n"), 0o600))
	larger := newSemaphore(t, name, 5)
	wantTry(t, larger, 4, false)
	wantTry(t, larger, 3, true)
	s.Release(2)
	wantTry(t, larger, 2, true)
	wantTry(t, s, 1, false)
	larger.Release(5)
}

// SECURITY.md: who may only read the gate of a semaphore cannot change its size.
func TestSizeIsNotForReadersToChange(t *testing.T) {
	needRoot(t)
	name := filepath.Join(openDir(t, 0o755), "sem")
	s, err := NewFileSemaphore(name, 2, WithPerm(0o644))
	must(t, err)
	must(t, s.Close())
	before := Must(os.ReadFile(name + ".gate.lock"))
	p := asNobody(t, "acquirer", name, "2") // or else it can do nothing at all
	p.Expect("ready")
	p.Kill()
	line, _ := asNobody(t, "acquirer", name, "3").Line(patience)
	if !strings.Contains(line, "size 2") || !strings.Contains(line, "size 3") {
		t.Errorf("%q", line)
	}
	if after := Must(os.ReadFile(name + ".gate.lock")); string(after) != string(before) {
		t.Errorf("%q became %q", before, after)
	}
}
