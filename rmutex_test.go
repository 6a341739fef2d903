package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// reentrantLocker has a FileRMutex and two owners, a and b, and does with it what it is told.
func reentrantLocker(args []string) {
	m := Must(NewFileRMutex(args[0]))
	a, b := NewOwner(), NewOwner()
	calls := map[string]func(context.Context) error{
		"lock a":   func(ctx context.Context) error { return m.LockContext(ctx, a) },
		"lock b":   func(ctx context.Context) error { return m.LockContext(ctx, b) },
		"unlock a": func(context.Context) error { m.Unlock(a); return nil },
		"unlock b": func(context.Context) error { m.Unlock(b); return nil },
	}
	serve(func(ctx context.Context, name string) error { return calls[name](ctx) })
}

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
}

func TestReentrant(t *testing.T) {
	path := lockPath(t)
	m := newRMutex(t, path)
	plain := newMutex(t, path) // of the same file
	a, b := NewOwner(), NewOwner()
	m.Lock(a)
	m.Lock(a)
	if !m.TryLock(a) || m.TryLockContext(t.Context(), a) != nil || m.LockContext(t.Context(), a) != nil {
		t.Fatal("its owner does not get in")
	}
	wantDepth(t, m, a, 5)
	wantDepth(t, m, b, 0)
	if m.TryLock(b) {
		t.Fatal("another owner gets in")
	}
	if err := m.TryLockContext(t.Context(), b); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	for depth := 4; depth > 0; depth-- {
		m.Unlock(a)
		wantDepth(t, m, a, depth)
		if plain.TryLock() {
			t.Fatal("an inner Unlock unlocked")
		}
	}
	m.Unlock(a)
	wantDepth(t, m, a, 0)
	if !m.TryLock(b) {
		t.Fatal("the outermost Unlock did not unlock")
	}
	m.Unlock(b)
}

func TestReentrantMisusePanicsAndChangesNothing(t *testing.T) {
	m := newRMutex(t, lockPath(t))
	a, b, zero := NewOwner(), NewOwner(), Owner{}
	m.Lock(a)
	for what, f := range map[string]func(){
		"Unlock of another":        func() { m.Unlock(b) },
		"zero Unlock":              func() { m.Unlock(zero) },
		"zero Lock":                func() { m.Lock(zero) },
		"zero TryLock":             func() { m.TryLock(zero) },
		"zero LockContext":         func() { m.LockContext(t.Context(), zero) },
		"zero Locker":              func() { m.Locker(zero) },
		"zero ContextWithOwner":    func() { ContextWithOwner(t.Context(), zero) },
		"Unlock by another object": func() { newRMutex(t, m.path).Unlock(a) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic: " + what)
				}
			}()
			f()
		}()
	}
	wantDepth(t, m, a, 1)
	wantDepth(t, m, zero, 0)
	m.Unlock(a)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic: Unlock of what is free")
			}
		}()
		m.Unlock(a)
	}()
	if !m.TryLock(b) {
		t.Error("not free")
	}
	m.Unlock(b)
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

func TestGoroutinesOfOneOwnerShareWhatTheyWaitFor(t *testing.T) {
	path := lockPath(t)
	m := newRMutex(t, path)
	p := startServer(t, "reentrant", path)
	p.Ask("lock a", "lock a ok")
	o := NewOwner()
	lock := func() error { return m.LockContext(t.Context(), o) }
	var waiters []<-chan error
	for i := range 3 {
		waiters = append(waiters, start(lock))
		following(t, m, o, i)
	}
	wantDepth(t, m, o, 0) // which does not wait
	if m.TryLock(o) {
		t.Fatal("a try overtakes")
	}
	pending(t, waiters[0])
	p.Ask("unlock a", "unlock a ok")
	for _, w := range waiters {
		must(t, finish(t, w))
	}
	wantDepth(t, m, o, 3)
	p.Say("lock b")
	for range 3 {
		if line, ok := p.Line(moment); ok {
			t.Fatal(line)
		}
		m.Unlock(o)
	}
	p.Expect("lock b ok")
}

func TestWhoWaitsTakesOverFromWhoGivesUp(t *testing.T) {
	for cancelled := range 3 {
		path := lockPath(t)
		m, holder := newRMutex(t, path), newMutex(t, path)
		holder.Lock()
		o := NewOwner()
		var waiters []<-chan error
		var cancels []context.CancelFunc
		for i := range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cancels = append(cancels, cancel)
			waiters = append(waiters, start(func() error { return m.LockContext(ctx, o) }))
			following(t, m, o, i)
		}
		cancels[cancelled]()
		if err := finish(t, waiters[cancelled]); err != context.Canceled {
			t.Error(err)
		}
		following(t, m, o, 1)
		holder.Unlock()
		for i, w := range waiters {
			if i != cancelled {
				must(t, finish(t, w))
			}
		}
		wantDepth(t, m, o, 2)
		m.Unlock(o)
		m.Unlock(o)
	}
}

func TestAllOfAnOwnerGiveUp(t *testing.T) {
	path := lockPath(t)
	m, holder := newRMutex(t, path), newMutex(t, path)
	holder.Lock()
	a, b := NewOwner(), NewOwner()
	ctx, cancel := context.WithCancel(t.Context())
	var waiters []<-chan error
	for i := range 4 {
		waiters = append(waiters, start(func() error { return m.LockContext(ctx, a) }))
		following(t, m, a, i)
	}
	other := start(func() error { return m.LockContext(t.Context(), b) })
	following(t, m, b, 0)
	cancel()
	for _, w := range waiters {
		if err := finish(t, w); err != context.Canceled {
			t.Error(err)
		}
	}
	holder.Unlock()
	must(t, finish(t, other))
	wantDepth(t, m, b, 1)
	wantDepth(t, m, a, 0)
	m.Unlock(b)
}

// Owners with several goroutines each, with cancels: never two owners at once.
func TestOwnersExcludeEachOther(t *testing.T) {
	path := lockPath(t)
	objects := []*FileRMutex{newRMutex(t, path), newRMutex(t, path)}
	owners := []Owner{NewOwner(), NewOwner(), NewOwner()}
	var mu sync.Mutex
	inside := map[Owner]int{}
	hammer(t, 9, 60, func(i int) {
		m, o := objects[i%2], owners[i%3]
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if i%5 == 0 {
			go cancel()
		}
		if m.LockContext(ctx, o) != nil {
			return
		}
		mu.Lock()
		inside[o]++
		if len(inside) != 1 {
			t.Error("two owners")
		}
		mu.Unlock()
		if m.LockContext(t.Context(), o) == nil {
			m.Unlock(o)
		}
		mu.Lock()
		if inside[o]--; inside[o] == 0 {
			delete(inside, o)
		}
		mu.Unlock()
		m.Unlock(o)
	})
	for _, o := range owners {
		wantDepth(t, objects[0], o, 0)
	}
}

func TestKilledOwnerFreesTheLock(t *testing.T) {
	path := lockPath(t)
	m := newRMutex(t, path)
	p := startServer(t, "reentrant", path)
	p.Ask("lock a", "lock a ok")
	p.Ask("lock a", "lock a ok")
	o := NewOwner()
	w := start(func() error { return m.LockContext(t.Context(), o) })
	pending(t, w)
	p.Kill()
	must(t, finish(t, w))
	m.Unlock(o)
}

// All objects of a process for one path are one lock, for one owner and for several.
func TestReentrantObjectsOnOnePath(t *testing.T) {
	dir := t.TempDir()
	symlink(t, dir, filepath.Join(dir, "link"))
	m, same := newRMutex(t, filepath.Join(dir, "lock")), newRMutex(t, filepath.Join(dir, "link", "lock"))
	a, b := NewOwner(), NewOwner()
	m.Lock(a)
	same.Lock(a) // does not wait for itself
	wantDepth(t, m, a, 2)
	wantDepth(t, same, a, 2)
	if same.TryLock(b) {
		t.Error("two owners")
	}
	other := start(func() error { return same.LockContext(t.Context(), b) })
	following(t, m, b, 0)
	if err := same.Close(); !errors.Is(err, errInUse) {
		t.Error(err)
	}
	m.Unlock(a)
	pending(t, other)
	same.Unlock(a)
	must(t, finish(t, other))
	same.Unlock(b)

	// One can be closed while another is locked, and made anew afterwards.
	third, err := NewFileRMutex(m.Path())
	must(t, err)
	m.Lock(a)
	must(t, third.Close())
	if err := third.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if err := third.LockContext(t.Context(), a); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if err := m.Close(); !errors.Is(err, errInUse) {
		t.Error(err)
	}
	m.Unlock(a)
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

func TestDo(t *testing.T) {
	path := lockPath(t)
	m, other := newRMutex(t, path), newRMutex(t, lockPath(t))
	plain := newMutex(t, path)
	bad := errors.New("bad")
	err := m.Do(t.Context(), func(ctx context.Context) error {
		outer, ok := OwnerFromContext(ctx)
		wantDepth(t, m, outer, 1)
		err := other.Do(ctx, func(ctx context.Context) error {
			return m.Do(ctx, func(ctx context.Context) error {
				inner, _ := OwnerFromContext(ctx)
				if !ok || inner != outer {
					t.Error("another owner inside")
				}
				wantDepth(t, m, inner, 2)
				wantDepth(t, other, inner, 1)
				return bad
			})
		})
		wantDepth(t, other, outer, 0)
		wantDepth(t, m, outer, 1)
		return err
	})
	if err != bad || !plain.TryLock() {
		t.Error("locked after an error: ", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := start(func() error {
		return m.Do(ctx, func(context.Context) error { t.Error("called"); return nil })
	})
	pending(t, waits)
	cancel()
	if err := finish(t, waits); err != context.Canceled {
		t.Error(err)
	}
	plain.Unlock()

	o := NewOwner()
	func() {
		defer func() {
			if recover() != bad {
				t.Error("no panic")
			}
		}()
		m.Do(ContextWithOwner(t.Context(), o), func(ctx context.Context) error {
			wantDepth(t, m, o, 1)
			panic(bad)
		})
	}()
	wantDepth(t, m, o, 0)
	if !plain.TryLock() {
		t.Error("locked after a panic")
	}
	plain.Unlock()
}

func TestReentrantLocker(t *testing.T) {
	m := newRMutex(t, lockPath(t))
	o := NewOwner()
	l := m.Locker(o)
	l.Lock()
	l.Lock()
	wantDepth(t, m, o, 2)
	l.Unlock()
	l.Unlock()
	wantDepth(t, m, o, 0)
}

func TestReentrantDoneContext(t *testing.T) {
	m := newRMutex(t, lockPath(t))
	o := NewOwner()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, depth := range []int{0, 1} {
		if err := m.LockContext(ctx, o); err != context.Canceled {
			t.Error(err)
		}
		if err := m.TryLockContext(ctx, o); err != context.Canceled {
			t.Error(err)
		}
		wantDepth(t, m, o, depth)
		if depth == 0 {
			m.Lock(o)
		}
	}
	m.Unlock(o)
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

// Who gave up can lock later.
func TestReentrantLockAfterGivingUp(t *testing.T) {
	path := lockPath(t)
	m, holder, o := newRMutex(t, path), newMutex(t, path), NewOwner()
	holder.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := m.LockContext(ctx, o); err != context.DeadlineExceeded {
		t.Error(err)
	}
	holder.Unlock()
	if !m.TryLock(o) {
		t.Fatal("still waits")
	}
	m.Unlock(o)
}

func TestReentrantCloseOfAnObjectThatWaits(t *testing.T) {
	path := lockPath(t)
	m, same := newRMutex(t, path), newRMutex(t, path)
	a, b := NewOwner(), NewOwner()
	m.Lock(a)
	w := start(func() error { return same.LockContext(t.Context(), b) })
	following(t, m, b, 0)
	if err := same.Close(); !errors.Is(err, errInUse) {
		t.Fatal(err)
	}
	m.Unlock(a)
	must(t, finish(t, w))
	same.Unlock(b)
}
