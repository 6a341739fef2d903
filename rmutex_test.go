package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
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
		t.Errorf("the owners %v and %v", a, b)
	}
	if _, ok := OwnerFromContext(t.Context()); ok {
		t.Error("a context without an owner has one")
	}
	if o, ok := OwnerFromContext(ContextWithOwner(t.Context(), a)); !ok || o != a {
		t.Errorf("OwnerFromContext = %v, %t, want %v", o, ok, a)
	}
	m := newRMutex(t, lockPath(t))
	for name, call := range map[string]func(){
		"ContextWithOwner": func() { ContextWithOwner(t.Context(), Owner{}) },
		"Locker":           func() { m.Locker(Owner{}) },
	} {
		if panicOf(call) == nil {
			t.Errorf("%s accepts the zero Owner", name)
		}
	}
}

// After the last object for a path was closed, the next one starts from
// scratch, even if another file is at the path.
func TestReentrantAfterLastClose(t *testing.T) {
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
		t.Errorf("%d paths are still known", n)
	}
}

// The file is the one that the path led to when the object was made. All
// objects whose paths led there are one lock.
func TestReentrantPaths(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a", "b", "b/sub"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	symlink(t, "../b/sub", filepath.Join(dir, "a/link"))
	link := dir + "/a/link/../lock" // this is b/lock
	for path, file := range map[string]string{dir + "/a/lock": "a/lock", link: "b/lock", dir + "/b/lock": "b/lock"} {
		m, plain := newRMutex(t, path), newMutex(t, filepath.Join(dir, file))
		if m.Path() != path {
			t.Errorf("Path() = %q, want %q", m.Path(), path)
		}
		o := NewOwner()
		m.Lock(o)
		if plain.TryLock() {
			t.Errorf("%s is not %s", path, file)
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
	wantPathError(t, now.TryLockContext(t.Context(), NewOwner()), "lock", now.Path(), ErrLocked)
}

func TestReentrantErrorsNameThePath(t *testing.T) {
	dir := t.TempDir()
	var pathErr *fs.PathError
	if m, err := NewFileRMutex(dir); m != nil || !errors.As(err, &pathErr) || pathErr.Path != dir {
		t.Errorf("NewFileRMutex = %v, %v", m, err)
	}
}

// If the waiter that leads for an owner fails, and the next one is canceled
// just before or after it is told to lead, the one after that leads.
func TestReentrantWaiterCanceledAsItIsToLead(t *testing.T) {
	for _, canceledFirst := range []bool{false, true} {
		m, o := newRMutex(t, lockPath(t)), NewOwner()
		r := m.lock
		self := &waiter{mode: exclusive} // this test leads
		r.mu.Lock()
		q := new(queue)
		r.waits[o] = q
		q.add(self)
		q.lead()
		r.mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		next := start(func() error { return m.LockContext(ctx, o) })
		following(t, m, o, 2)
		last := start(func() error { return m.LockContext(t.Context(), o) })
		following(t, m, o, 3)
		time.Sleep(time.Millisecond) // they are asleep, so that the first reason wakes the next one
		r.mu.Lock()
		if canceledFirst {
			cancel()
		}
		q.remove(self, removed)
		q.lead()
		cancel()
		r.mu.Unlock()
		if err := finish(t, next); err != context.Canceled {
			t.Error(err)
		}
		must(t, finish(t, last))
		m.Unlock(o)
	}
}
