package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/wine"
)

func TestGoroutinesShareOneObject(t *testing.T) {
	m := newMutex(t, lockPath(t))
	n := 0 // without happens-before edges, the race detector complains
	hammer(t, 8, 500, func(int) { m.Lock(); n++; m.Unlock() })
	if n != 8*500 {
		t.Errorf("%d increments left of %d", n, 8*500)
	}
}

func TestObjectsOnOnePathExcludeEachOther(t *testing.T) {
	path := lockPath(t)
	ms := []*FileRWMutex{newMutex(t, path), newMutex(t, path), newMutex(t, path)}
	n := 0
	hammer(t, len(ms), 500, func(i int) { ms[i].Lock(); n++; ms[i].Unlock() })
	if n != len(ms)*500 {
		t.Errorf("%d increments left of %d", n, len(ms)*500)
	}
}

// hammer calls f, n times on each of some goroutines.
func hammer(t *testing.T, goroutines, n int, f func(i int)) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for range n {
				f(i)
			}
		})
	}
	wg.Wait()
}

func TestProcessesExcludeEachOther(t *testing.T) {
	path := lockPath(t)
	counter := filepath.Join(t.TempDir(), "counter")
	const processes, n = 4, 300
	var ps []*proc.Process
	for range processes {
		ps = append(ps, proc.Start("increment", path, counter, strconv.Itoa(n)))
	}
	for _, p := range ps {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	data, _ := os.ReadFile(counter)
	if string(data) != strconv.Itoa(processes*n) {
		t.Errorf("%s increments left of %d", data, processes*n)
	}
}

func TestOtherNamesOfTheFileAreTheSameLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	m := newMutex(t, path)
	m.Lock()
	defer m.Unlock()
	link, alias := filepath.Join(dir, "hardlink"), filepath.Join(t.TempDir(), "dir")
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	symlink(t, dir, alias)
	t.Chdir(dir)
	for _, other := range []string{link, "lock", "./lock", dir + "/../" + filepath.Base(dir) + "/lock", filepath.Join(alias, "lock")} {
		o := newMutex(t, other)
		t.Chdir(t.TempDir()) // what a relative path means is settled
		if o.TryLock() {
			t.Errorf("%s is another lock", other)
			o.Unlock()
		}
		if o.Path() != other {
			t.Errorf("Path() = %q, want %q", o.Path(), other)
		}
		t.Chdir(dir)
	}
}

func TestReadersShareUntilTheLastIsOut(t *testing.T) {
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	p := startLocker(t, path)
	for range 3 {
		m.RLock()
	}
	p.Ask("tryrlock", "tryrlock ok")
	other.RLock()
	other.RUnlock()
	p.Ask("runlock", "runlock ok")
	for range 3 {
		if other.TryLock() {
			t.Fatal("a writer among readers")
		}
		p.Ask("trylock", "trylock lock")
		m.RUnlock()
	}
	p.Ask("trylock", "trylock ok")
	if m.TryRLock() || other.TryRLock() {
		t.Error("a reader beside a writer")
	}
	p.Ask("unlock", "unlock ok")
}

func TestRLocker(t *testing.T) {
	m := newMutex(t, lockPath(t))
	l := m.RLocker()
	l.Lock()
	if !m.TryRLock() || m.TryLock() {
		t.Error("RLocker().Lock() is not RLock()")
	}
	m.RUnlock()
	l.Unlock()
	m.Lock()
	m.Unlock()
}

// A blocked writer stops new readers, wherever it, they, and who holds the lock are.
func TestBlockedWriterStopsNewReaders(t *testing.T) {
	t.Run("its own process holds", func(t *testing.T) {
		path := lockPath(t)
		m, p := newMutex(t, path), startLocker(t, path)
		m.RLock()
		writer := start(func() error { m.Lock(); return nil })
		waitFor(t, "a writer at the gate", func() bool { return gated(m) })
		if m.TryRLock() {
			t.Error("a new reader in its own process")
		}
		p.Ask("tryrlock", "tryrlock rlock")
		p.Say("rlock")
		pending(t, writer)
		m.RUnlock()
		finish(t, writer)
		if _, ok := p.Line(moment); ok {
			t.Error("a reader beside a writer")
		}
		m.Unlock()
		p.Expect("rlock ok")
		p.Ask("runlock", "runlock ok")
	})
	t.Run("another process holds", func(t *testing.T) {
		path := lockPath(t)
		m, p := newMutex(t, path), startLocker(t, path)
		p.Ask("rlock", "rlock ok")
		writer := start(func() error { m.Lock(); return nil })
		waitFor(t, "a writer at the gate", func() bool { return gated(m) })
		time.Sleep(time.Millisecond) // what p remembers of the gate
		p.Ask("tryrlock", "tryrlock rlock")
		reader := start(func() error { m.RLock(); return nil })
		pending(t, reader)
		pending(t, writer)
		p.Ask("runlock", "runlock ok")
		finish(t, writer)
		pending(t, reader)
		m.Unlock()
		finish(t, reader)
		m.RUnlock()
	})
}

// gated reports whether m stands at the gate.
func gated(m *FileRWMutex) bool {
	probe, err := openLockFile(m.abs, 0o600)
	if err != nil {
		return false
	}
	defer probe.close()
	return probe.gateTaken(shared)
}

func TestWritersAreNotStarved(t *testing.T) {
	const turns = 50
	takeTurns := func(t *testing.T, m *FileRWMutex) {
		t.Helper()
		for range turns {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := m.LockContext(ctx)
			cancel()
			if err != nil {
				t.Fatal("no turn: ", err)
			}
			time.Sleep(10 * time.Microsecond)
			m.Unlock()
		}
	}
	t.Run("by overlapping readers in several processes", func(t *testing.T) {
		path := lockPath(t)
		for range 3 {
			startLocker(t, path).Say("readers")
		}
		time.Sleep(moment)
		takeTurns(t, newMutex(t, path))
	})
	t.Run("by readers who join in one process", func(t *testing.T) {
		path := lockPath(t)
		startLocker(t, path).Say("readers")
		time.Sleep(moment)
		takeTurns(t, newMutex(t, path))
	})
	t.Run("by a busy writer", func(t *testing.T) {
		path := lockPath(t)
		startLocker(t, path).Say("writer")
		time.Sleep(moment)
		takeTurns(t, newMutex(t, path))
	})
	t.Run("by busy goroutines of another process", func(t *testing.T) {
		path := lockPath(t)
		p := startLocker(t, path)
		for range 4 {
			p.Say("writer")
		}
		time.Sleep(moment)
		takeTurns(t, newMutex(t, path))
	})
}

func TestDoneContextFailsOnAFreeLock(t *testing.T) {
	m := newMutex(t, lockPath(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range methods(m) {
		if err := call(ctx); err != context.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func methods(m *FileRWMutex) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"LockContext":     m.LockContext,
		"RLockContext":    m.RLockContext,
		"TryLockContext":  m.TryLockContext,
		"TryRLockContext": m.TryRLockContext,
	}
}

func TestTryOfAHeldLock(t *testing.T) {
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	m.Lock()
	defer m.Unlock()
	for _, x := range []*FileRWMutex{m, other} {
		var pathErr *fs.PathError
		for op, err := range map[string]error{"lock": x.TryLockContext(t.Context()), "rlock": x.TryRLockContext(t.Context())} {
			if !errors.Is(err, ErrLocked) || !errors.As(err, &pathErr) || pathErr.Path != path || pathErr.Op != op {
				t.Errorf("%s: %v", op, err)
			}
		}
		if x.TryLock() || x.TryRLock() {
			t.Error("locked twice")
		}
	}
}

// The wait of a goroutine ends with its context and with no other, whoever of those who wait
// on one object stands in the kernel's queue for them.
func TestCancelledWaits(t *testing.T) {
	for _, first := range []string{"LockContext", "RLockContext"} {
		for _, second := range []string{"LockContext", "RLockContext"} {
			t.Run(first+" then "+second, func(t *testing.T) {
				path := lockPath(t)
				holder, m := newMutex(t, path), newMutex(t, path)
				holder.Lock()
				ctx1, cancel1 := context.WithCancel(t.Context())
				defer cancel1()
				ctx2, cancel2 := context.WithTimeout(t.Context(), patience)
				defer cancel2()
				leader := start(func() error { return methods(m)[first](ctx1) })
				waitFor(t, "one in the queue", func() bool { return queued(m) == 1 })
				next := start(func() error { return methods(m)[second](ctx2) })
				waitFor(t, "two in the queue", func() bool { return queued(m) == 2 })
				pending(t, leader)
				cancel1()
				if err := finish(t, leader); err != context.Canceled {
					t.Error(err)
				}
				pending(t, next)
				holder.Unlock()
				if err := finish(t, next); err != nil {
					t.Fatal(err)
				}
				if second == "LockContext" {
					m.Unlock()
				} else {
					m.RUnlock()
				}
				holder.Lock() // nothing is left of the cancelled wait
				holder.Unlock()
			})
		}
	}
	t.Run("not the leader", func(t *testing.T) {
		path := lockPath(t)
		holder, m := newMutex(t, path), newMutex(t, path)
		holder.Lock()
		leader := start(func() error { return m.LockContext(t.Context()) })
		waitFor(t, "one in the queue", func() bool { return queued(m) == 1 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := m.LockContext(ctx); err != context.DeadlineExceeded {
			t.Error(err)
		}
		pending(t, leader)
		holder.Unlock()
		finish(t, leader)
		m.Unlock()
	})
	t.Run("behind readers of its own process", func(t *testing.T) {
		m := newMutex(t, lockPath(t))
		m.RLock()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		writer := start(func() error { return m.LockContext(ctx) })
		waitFor(t, "the writer waits", func() bool { return queued(m) == 1 })
		reader := start(func() error { m.RLock(); return nil })
		if err := finish(t, writer); err != context.DeadlineExceeded {
			t.Error(err)
		}
		finish(t, reader) // lives on, and the writer does not stop it any more
		m.RUnlock()
		m.RUnlock()
	})
}

// Cancels in two living processes at once do not disturb each other.
func TestCancelsInTwoProcesses(t *testing.T) {
	path := lockPath(t)
	holder := newMutex(t, path)
	holder.Lock()
	defer holder.Unlock()
	p, q := startLocker(t, path), startLocker(t, path)
	for range 50 {
		p.Say("lock")
		q.Say("rlock")
		time.Sleep(2 * time.Millisecond)
		p.Say("cancel")
		q.Say("cancel")
		p.Expect("lock context canceled")
		q.Expect("rlock context canceled")
	}
}

// A cancel that races the grant never leaves the lock held, and never lets two in.
func TestCancelRacesTheGrant(t *testing.T) {
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	var holders atomic.Int32
	won, lost := 0, 0
	for i := range 400 {
		other.Lock()
		ctx, cancel := context.WithCancel(t.Context())
		var waits []<-chan error
		for range 2 {
			waits = append(waits, start(func() error {
				err := m.LockContext(ctx)
				if err == nil {
					if holders.Add(1) != 1 {
						t.Error("two holders")
					}
					holders.Add(-1)
					m.Unlock()
				}
				return err
			}))
		}
		waitFor(t, "two in the queue", func() bool { return queued(m) == 2 })
		if i%4 == 0 {
			time.Sleep(time.Millisecond) // well into the kernel
		}
		go cancel()
		other.Unlock()
		for _, w := range waits {
			switch err := finish(t, w); err {
			case nil:
				won++
			case context.Canceled:
				lost++
			default:
				t.Fatal(err)
			}
		}
		if !other.TryLock() {
			// The gate of a wait that just ended may have been seen a moment ago.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := other.LockContext(ctx); err != nil {
				t.Fatal("left locked")
			}
			cancel()
		}
		other.Unlock()
	}
	t.Logf("%d won, %d lost", won, lost)
}

func TestStormOfCancels(t *testing.T) {
	path := lockPath(t)
	ms := []*FileRWMutex{newMutex(t, path), newMutex(t, path)}
	inside := [2]int{} // readers and writers, guarded by mu
	var mu sync.Mutex
	enter := func(kind, d int) {
		mu.Lock()
		defer mu.Unlock()
		if inside[kind] += d; inside[1] > 1 || inside[0] > 0 && inside[1] > 0 {
			t.Error("readers and writers inside: ", inside)
		}
	}
	hammer(t, 16, 150, func(i int) {
		m := ms[i%2]
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*50*time.Microsecond)
		defer cancel()
		if i%3 == 0 {
			if m.LockContext(ctx) == nil {
				enter(1, 1)
				enter(1, -1)
				m.Unlock()
			}
		} else if m.RLockContext(ctx) == nil {
			enter(0, 1)
			runtime.Gosched()
			enter(0, -1)
			m.RUnlock()
		}
	})
	for _, m := range ms {
		m.Lock()
		m.Unlock()
	}
}

func TestKilledHolderFreesTheLock(t *testing.T) {
	for _, mode := range []string{"lock", "rlock"} {
		t.Run(mode, func(t *testing.T) {
			path := lockPath(t)
			m, p, q := newMutex(t, path), startLocker(t, path), startLocker(t, path)
			p.Ask(mode, mode+" ok")
			q.Say("lock")
			waiter := start(func() error { m.Lock(); return nil })
			pending(t, waiter)
			q.Kill() // who waits, perhaps before us
			pending(t, waiter)
			p.Kill()
			finish(t, waiter)
			m.Unlock()
		})
	}
}

// The lock file removed, replaced, renamed or made anew: who comes later uses the file that is at the path,
// and all of them the same.
func TestLockFileRemoved(t *testing.T) {
	changes := map[string]func(t *testing.T, path string){
		"unlinked": func(t *testing.T, path string) { remove(t, path) },
		"recreated": func(t *testing.T, path string) {
			remove(t, path)
			must(t, os.WriteFile(path, nil, 0o600))
		},
		"renamed away": func(t *testing.T, path string) { rename(t, path, path+".old") },
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
	for name, change := range changes {
		switch {
		case name == "replaced" && wine.Here():
			t.Log("not tried: Wine does not replace an open file")
			continue
		case name == "directory renamed" && runtime.GOOS == "windows" && !wine.Here():
			continue // it must have no open files
		}
		t.Run(name+" while idle", func(t *testing.T) {
			path := lockPath(t)
			m, p := newMutex(t, path), startLocker(t, path)
			settle(m)
			change(t, path)
			p.Ask("lock", "lock ok")
			if m.TryLock() || m.TryRLock() {
				t.Error("two holders")
			}
			p.Ask("unlock", "unlock ok")
			if !m.TryLock() {
				t.Fatal("refused through a file that is gone")
			}
			p.Ask("trylock", "trylock lock")
			m.Unlock()
		})
		t.Run(name+" while held", func(t *testing.T) {
			path := lockPath(t)
			old, m, p := newMutex(t, path), newMutex(t, path), startLocker(t, path)
			settle(m)
			old.Lock()
			change(t, path)
			p.Ask("trylock", "trylock ok") // not refused by who holds the old file
			if m.TryLock() {
				t.Error("two holders")
			}
			p.Ask("unlock", "unlock ok")
			if !m.TryLock() {
				t.Fatal("refused through a file that is gone")
			}
			old.Unlock()
			if old.TryLock() || old.TryRLock() {
				t.Error("two holders")
			}
			m.Unlock()
		})
		t.Run(name+" while shared", func(t *testing.T) {
			path := lockPath(t)
			old, m := newMutex(t, path), newMutex(t, path)
			settle(old)
			old.RLock()
			change(t, path)
			m.Lock()
			time.Sleep(time.Millisecond) // what old remembers
			if old.TryRLock() {
				t.Error("joined a lock on a file that is gone")
			}
			reader := start(func() error { old.RLock(); return nil })
			writer := start(func() error { old.Lock(); old.Unlock(); return nil })
			pending(t, reader)
			old.RUnlock()
			pending(t, reader)
			m.Unlock()
			finish(t, reader)
			old.RUnlock()
			finish(t, writer)
		})
		t.Run(name+" while waited for", func(t *testing.T) {
			path := lockPath(t)
			old, m, p := newMutex(t, path), newMutex(t, path), startLocker(t, path)
			settle(m)
			old.Lock()
			waiter := start(func() error { m.Lock(); return nil })
			pending(t, waiter)
			change(t, path)
			p.Say("lock")
			for line, ok := p.Line(moment); line != "lock ok"; line, ok = p.Line(moment) {
				if ok {
					t.Fatal(line)
				}
				select {
				case err := <-waiter: // a poller is not held up by who holds the old file
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
			pending(t, waiter) // it has the old file now, which does not count
			p.Ask("unlock", "unlock ok")
			finish(t, waiter)
			p.Ask("trylock", "trylock lock")
			m.Unlock()
		})
	}
}

// settle makes m sure of its file, so that it looks no closer than it must.
func settle(m *FileRWMutex) {
	for range 2 {
		time.Sleep(2 * ctimeSettled)
		m.Lock()
		m.Unlock()
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

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
	func() {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Lock panicked with %v", err)
			}
		}()
		m.Lock()
	}()
	must(t, os.Mkdir(dir, 0o700))
	m.Lock() // the error was not for ever
	m.Unlock()
}

func TestTheFileStaysUntouched(t *testing.T) {
	path := lockPath(t)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	must(t, os.Chtimes(path, old, old))
	before, _ := os.Stat(path)
	m := newMutex(t, path, WithPerm(0o644))
	m.Lock()
	m.Unlock()
	m.RLock()
	m.RUnlock()
	after, _ := os.Stat(path)
	if !os.SameFile(before, after) || before.Mode() != after.Mode() || !before.ModTime().Equal(after.ModTime()) || after.Size() != 8 {
		t.Errorf("before: %v %v, after: %v %v", before.Mode(), before.ModTime(), after.Mode(), after.ModTime())
	}
}

func TestBadOptions(t *testing.T) {
	path := lockPath(t)
	for name, opt := range map[string]Option{
		"perm":          WithPerm(fs.ModeSetuid | 0o600),
		"no interval":   WithPollInterval(0, time.Second),
		"max under min": WithPollInterval(time.Second, time.Millisecond),
	} {
		var pathErr *fs.PathError
		if m, err := NewFileRWMutex(path, opt); m != nil || !errors.Is(err, fs.ErrInvalid) || !errors.As(err, &pathErr) {
			t.Errorf("%s: %v, %v", name, m, err)
		}
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file was created nevertheless")
	}
}

func TestMust(t *testing.T) {
	if Must(1, nil) != 1 {
		t.Error("Must(1, nil) != 1")
	}
	defer func() {
		if recover() != fs.ErrInvalid {
			t.Error("Must did not panic with the error")
		}
	}()
	Must(1, fs.ErrInvalid)
}

func TestMisusePanicsAndHarmsNothing(t *testing.T) {
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	panics := func(call func(), want string) {
		t.Helper()
		defer func() {
			t.Helper()
			if got, _ := recover().(string); !strings.Contains(got, want) || !strings.Contains(got, path) {
				t.Errorf("panic %q, want %q and the path", got, want)
			}
		}()
		call()
	}
	panics(m.Unlock, "Unlock of FileRWMutex not locked for writing")
	panics(m.RUnlock, "RUnlock of FileRWMutex not locked for reading")
	m.RLock()
	panics(m.Unlock, "Unlock of FileRWMutex not locked for writing")
	if other.TryLock() {
		t.Error("the wrong Unlock has unlocked")
	}
	m.RUnlock()
	m.Lock()
	panics(m.RUnlock, "RUnlock of FileRWMutex not locked for reading")
	if other.TryRLock() {
		t.Error("the wrong RUnlock has unlocked")
	}
	m.Unlock()
	if !other.TryLock() {
		t.Fatal("left locked")
	}
	other.Unlock()
}

func TestClose(t *testing.T) {
	path := lockPath(t)
	m, err := NewFileRWMutex(path)
	must(t, err)
	other := newMutex(t, path)

	for _, l := range []sync.Locker{m, m.RLocker()} {
		l.Lock()
		if err := m.Close(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Close of a locked one: %v", err)
		}
		l.Unlock()
	}
	other.Lock()
	waiter := start(func() error { m.Lock(); return nil })
	waitFor(t, "one in the queue", func() bool { return queued(m) == 1 })
	if err := m.Close(); err == nil {
		t.Error("closed while waited for")
	}
	other.Unlock()
	finish(t, waiter)
	m.Unlock()

	must(t, m.Close())
	var pathErr *fs.PathError
	if err := m.Close(); !errors.Is(err, fs.ErrClosed) || !errors.As(err, &pathErr) {
		t.Errorf("second Close: %v", err)
	}
	for name, call := range methods(m) {
		if err := call(t.Context()); !errors.Is(err, fs.ErrClosed) || !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	for name, call := range map[string]func(){"Lock": m.Lock, "RLock": m.RLock, "TryLock": func() { m.TryLock() }} {
		func() {
			defer func() {
				if err, _ := recover().(error); !errors.Is(err, fs.ErrClosed) {
					t.Errorf("%s after Close panicked with %v", name, err)
				}
			}()
			call()
		}()
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("Close has removed the file")
	}
}

// Whoever stands at the gate is not overtaken: a writer by nobody, a reader not by writers.
func TestGateIsRespected(t *testing.T) {
	path := lockPath(t)
	for _, at := range []hold{exclusive, shared} {
		m := newMutex(t, path)
		waiter, err := openLockFile(m.abs, 0o600)
		must(t, err)
		defer waiter.close()
		must(t, waiter.takeGate(t.Context(), at, defaultPollInterval))
		if m.TryLock() {
			t.Errorf("a writer overtakes who waits %s", at.op())
		}
		if m.TryRLock() != (at == shared) {
			t.Errorf("wrong about a reader behind who waits %s", at.op())
		}
		if at == shared {
			m.RUnlock()
		}
		time.Sleep(time.Millisecond) // what m remembers of the gate
		writer := start(func() error { return m.LockContext(t.Context()) })
		pending(t, writer)
		waiter.leaveGate()
		must(t, finish(t, writer))
		m.Unlock()
	}
}
