package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func newRMutex(t testing.TB, path string) *FileRMutex {
	t.Helper()
	m, err := NewFileRMutex(path)
	must(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func wantDepth(t testing.TB, m *FileRMutex, o Owner, want int) {
	t.Helper()
	if got := m.Depth(o); got != want {
		t.Fatalf("depth %d, want %d", got, want)
	}
}

func TestOwners(t *testing.T) {
	a, b := NewOwner(), NewOwner()
	if a == b || a == (Owner{}) {
		t.Error(a, b)
	}
	if _, ok := OwnerFromContext(t.Context()); ok {
		t.Error("an owner from nowhere")
	}
	if o, ok := OwnerFromContext(ContextWithOwner(t.Context(), a)); !ok || o != a {
		t.Error(o, ok)
	}
	for what, call := range map[string]func(){
		"ContextWithOwner": func() { ContextWithOwner(t.Context(), Owner{}) },
		"Locker":           func() { newRMutex(t, lockPath(t)).Locker(Owner{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the zero Owner is none for " + what)
				}
			}()
			call()
		}()
	}
}

// following waits until n goroutines follow one of the owner, who waits.
func following(t *testing.T, m *FileRMutex, o Owner, n int) {
	t.Helper()
	waitFor(t, "following", func() bool {
		m.lock.mu.Lock()
		defer m.lock.mu.Unlock()
		followers, waits := m.lock.waits[o]
		return waits && len(followers) == n
	})
}

// Who comes after the last was closed begins anew, also if the file is another one.
func TestReentrantReopened(t *testing.T) {
	path := lockPath(t)
	for range 3 {
		m, err := NewFileRMutex(path)
		must(t, err)
		o := NewOwner()
		m.Lock(o)
		m.Unlock(o)
		must(t, m.Close())
		must(t, os.Remove(path))
	}
	if n := len(reentrants.byKey); n != 0 {
		t.Error(n, "left")
	}
}

// The file is the one that the path led to when the object was made, and one lock with what else
// leads there.
func TestReentrantPaths(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a", "b", "b/sub"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	symlink(t, "../b/sub", filepath.Join(dir, "a/link"))
	link := dir + "/a/link/../lock" // which is b/lock
	for made, file := range map[string]string{dir + "/a/lock": "a/lock", link: "b/lock", dir + "/b/lock": "b/lock"} {
		m, plain := newRMutex(t, made), newMutex(t, filepath.Join(dir, file))
		if m.Path() != made {
			t.Error(m.Path())
		}
		o := NewOwner()
		m.Lock(o)
		if plain.TryLock() {
			t.Error(made + " is not " + file)
		}
		m.Unlock(o)
	}
	must(t, os.Remove(filepath.Join(dir, "a/link")))
	symlink(t, "../a", filepath.Join(dir, "a/link"))
	m, same, now := newRMutex(t, dir+"/b/lock"), newRMutex(t, dir+"/a/lock"), newRMutex(t, dir+"/a/link/lock")
	o := NewOwner()
	same.Lock(o)
	now.Lock(o)
	wantDepth(t, m, o, 0)
	now.Unlock(o)
	same.Unlock(o)

	same.Lock(o)
	defer same.Unlock(o)
	err := now.TryLockContext(t.Context(), NewOwner())
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != now.Path() {
		t.Error(err)
	}
}

func TestReentrantRefuses(t *testing.T) {
	dir := t.TempDir()
	var pathErr *fs.PathError
	if m, err := NewFileRMutex(dir); m != nil || !errors.As(err, &pathErr) || pathErr.Path != dir {
		t.Error(err)
	}
}

// To drive, and cancelled at once: then the next one does.
func TestFollowerChosenAndCancelledAtOnce(t *testing.T) {
	m, o := newRMutex(t, lockPath(t)), NewOwner()
	r := m.lock
	r.mu.Lock()
	r.waits[o] = nil // this test is who locks for others
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	b := start(func() error { return m.LockContext(ctx, o) })
	following(t, m, o, 1)
	c := start(func() error { return m.LockContext(t.Context(), o) })
	following(t, m, o, 2)
	r.mu.Lock()
	r.drivesNext(o)
	cancel()
	r.mu.Unlock()
	if err := finish(t, b); err != context.Canceled {
		t.Error(err)
	}
	must(t, finish(t, c))
	m.Unlock(o)
}
