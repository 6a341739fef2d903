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

// lockFilesAt opens the lock file at path several times, as several processes
// do.
func lockFilesAt(t *testing.T, path string) (a, b, c *lockFile) {
	t.Helper()
	return lockFileAt(t, path), lockFileAt(t, path), lockFileAt(t, path)
}

// askAgain makes f forget that no process stands at the gate.
func askAgain(f *lockFile) { f.clear = [2]time.Duration{never, never} }

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if err != want {
		t.Errorf("%s = %v, want %v", what, err, want)
	}
}

func TestLockFileExcludes(t *testing.T) {
	a, b, c := lockFilesAt(t, lockPath(t))
	ctx := t.Context()
	must(t, a.try(ctx, exclusive))
	wantErr(t, "a writer's try beside a writer", b.try(ctx, exclusive), ErrLocked)
	wantErr(t, "a reader's try beside a writer", b.try(ctx, shared), ErrLocked)
	a.unlock()
	must(t, b.try(ctx, shared))
	must(t, c.try(ctx, shared))
	wantErr(t, "a writer's try beside readers", a.try(ctx, exclusive), ErrLocked)
	b.unlock()
	wantErr(t, "a writer's try beside a reader", a.try(ctx, exclusive), ErrLocked)
	c.unlock()
	must(t, a.try(ctx, exclusive))
	a.unlock()
}

func TestLockFileWait(t *testing.T) {
	for _, m := range []mode{shared, exclusive} {
		holder, f, other := lockFilesAt(t, lockPath(t))
		must(t, holder.try(t.Context(), exclusive))
		waiter := start(func() error { return f.wait(t.Context(), m) })
		pending(t, waiter)
		holder.unlock()
		must(t, finish(t, waiter))
		wantErr(t, "a writer's try beside it", other.try(t.Context(), exclusive), ErrLocked)
		f.unlock()
		if f.announced || taken(other, exclusive) {
			t.Error("after the wait, the process still stands at the gate")
		}
	}
}

// A wait that ends with its context leaves neither the lock nor the gate taken.
func TestLockFileWaitEndsWithContext(t *testing.T) {
	holder, f, other := lockFilesAt(t, lockPath(t))
	must(t, holder.try(t.Context(), exclusive))
	for _, m := range []mode{shared, exclusive} {
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			wantErr(t, "wait", f.wait(ctx, m), context.DeadlineExceeded)
			cancel()
			wantErr(t, "wait with a context that is done", f.wait(ctx, m), context.DeadlineExceeded)
			wantErr(t, "try with a context that is done", f.try(ctx, m), context.DeadlineExceeded)
		}
	}
	holder.unlock()
	waitFor(t, "the gate is free", func() bool { return !taken(other, exclusive) })
	askAgain(other)
	must(t, other.try(t.Context(), exclusive))
	other.unlock()
	must(t, f.try(t.Context(), exclusive))
	f.unlock()
}

// A wait that is canceled as it is granted has the lock, or has given it back.
func TestLockFileWaitCanceledAsItIsGranted(t *testing.T) {
	holder, f, other := lockFilesAt(t, lockPath(t))
	granted := 0
	for range 200 {
		must(t, holder.try(t.Context(), exclusive))
		ctx, cancel := context.WithCancel(t.Context())
		waiter := start(func() error { return f.wait(ctx, exclusive) })
		time.Sleep(200 * time.Microsecond)
		go cancel()
		holder.unlock()
		switch err := finish(t, waiter); err {
		case nil:
			granted++
			f.unlock()
		case context.Canceled:
		default:
			t.Fatal(err)
		}
		askAgain(other)
		if err := other.try(t.Context(), exclusive); err != nil {
			t.Fatal("the lock is not free: ", err)
		}
		other.unlock()
	}
	t.Logf("%d of 200 waits acquired the lock", granted)
}

// A try is not refused because of a file that is no longer at the path.
func TestLockFileFollowsThePath(t *testing.T) {
	path := lockPath(t)
	old, f := lockFileAt(t, path), lockFileAt(t, path)
	must(t, old.try(t.Context(), exclusive))
	remove(t, path)
	must(t, f.try(t.Context(), exclusive))
	fresh := lockFileAt(t, path)
	wantErr(t, "a try at the new file", fresh.try(t.Context(), shared), ErrLocked)
	f.unlock()
	old.unlock()
	must(t, old.try(t.Context(), exclusive))
	wantErr(t, "a try at the new file", fresh.try(t.Context(), shared), ErrLocked)
	old.unlock()
}

// A wait that gets the lock of a file that was replaced goes on at the new one.
func TestLockFileWaitMovesToNewFile(t *testing.T) {
	path := lockPath(t)
	old, f := lockFileAt(t, path), lockFileAt(t, path)
	must(t, old.try(t.Context(), exclusive))
	waiter := start(func() error { return f.wait(t.Context(), exclusive) })
	pending(t, waiter)
	remove(t, path)
	fresh := lockFileAt(t, path)
	if fresh.try(t.Context(), exclusive) == nil { // or a waiter that polls was quicker
		old.unlock()
		pending(t, waiter)
		fresh.unlock()
	} else {
		old.unlock()
	}
	must(t, finish(t, waiter))
	askAgain(fresh)
	wantErr(t, "a try at the new file", fresh.try(t.Context(), shared), ErrLocked)
	f.unlock()
}

// contended reports a waiter that the mode must not overtake, and a file that
// was replaced.
func TestContended(t *testing.T) {
	path := lockPath(t)
	holder, other, _ := lockFilesAt(t, path)
	contended := func(m mode) error {
		askAgain(holder)
		return holder.contended(t.Context(), m)
	}
	must(t, holder.try(t.Context(), shared))
	wantErr(t, "contended", contended(shared), nil)
	wantErr(t, "contended", contended(exclusive), nil)

	must(t, other.announce(t.Context(), shared))
	wantErr(t, "contended by a reader, for a reader", contended(shared), nil)
	wantErr(t, "contended by a reader, for a writer", contended(exclusive), ErrLocked)
	other.withdraw()

	must(t, other.announce(t.Context(), exclusive))
	wantErr(t, "contended by a writer, for a reader", contended(shared), ErrLocked)
	wantErr(t, "contended by a writer, for a writer", contended(exclusive), ErrLocked)
	other.withdraw()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if !holder.file.local {
		wantErr(t, "contended with a context that is done", holder.contended(ctx, shared), context.Canceled)
	}
	remove(t, path)
	time.Sleep(2 * pathCheckInterval)
	wantErr(t, "contended after the file was removed", contended(shared), errStale)
	holder.unlock()
}

// A process remembers what it saw at the gate for each mode. A reader does not
// look for other readers there, so what it remembers says nothing about them.
func TestGateIsRememberedByMode(t *testing.T) {
	a, b, _ := lockFilesAt(t, lockPath(t))
	must(t, b.announce(t.Context(), shared))
	defer b.withdraw()
	for range 20 {
		askAgain(a)
		must(t, a.try(t.Context(), shared)) // a reader may overtake a reader
		a.unlock()
		wantErr(t, "a writer's try behind a reader", a.try(t.Context(), exclusive), ErrLocked)
	}
}

// Errors name the file as the caller does. Without its directory a lock file
// works again once the directory is back.
func TestLockFileErrors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(dir, 0o700))
	o, err := newOptions(nil)
	must(t, err)
	f, err := openLockFile("a name", filepath.Join(dir, "lock"), o, true)
	must(t, err)
	defer f.close()
	must(t, os.RemoveAll(dir))
	for op, err := range map[string]error{"lock": f.try(t.Context(), exclusive), "rlock": f.wait(t.Context(), shared)} {
		var pathErr *fs.PathError
		if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &pathErr) || pathErr.Path != "a name" {
			t.Errorf("%s: %v, want an error that names the file", op, err)
		}
	}
	must(t, os.Mkdir(dir, 0o700))
	must(t, f.try(t.Context(), exclusive))
	f.unlock()
}

// Closing a lock file releases the lock and the gate. After that it can be used
// again.
func TestLockFileClose(t *testing.T) {
	a, b, other := lockFilesAt(t, lockPath(t))
	must(t, a.try(t.Context(), exclusive))
	must(t, b.announce(t.Context(), exclusive))
	a.close()
	b.close()
	waitFor(t, "the gate is free", func() bool { return !taken(other, exclusive) })
	waitFor(t, "the lock is free", func() bool { return other.try(t.Context(), exclusive) == nil })
	other.unlock()
	must(t, a.try(t.Context(), exclusive))
	a.unlock()
	a.close()
	a.close() // does nothing
}

// The calls that must return at once succeed if there is nothing to wait for,
// and report false otherwise.
func TestNowCalls(t *testing.T) {
	path := lockPath(t)
	a, b, c := lockFilesAt(t, path)
	if !a.file.local {
		if a.tryNow(shared) || !a.contendedNow(shared) {
			t.Error("a call succeeded at once on a file system that may not answer")
		}
		return
	}
	if !a.tryNow(exclusive) || b.tryNow(shared) {
		t.Error("tryNow does not exclude")
	}
	a.lockedAt = clock() + time.Hour // not long ago, however slow the machine
	if !a.handOnNow() || a.contendedNow(exclusive) {
		t.Error("a lock without waiters cannot be handed on")
	}
	must(t, b.announce(t.Context(), shared))
	askAgain(a)
	if a.handOnNow() || a.contendedNow(shared) || !a.contendedNow(exclusive) {
		t.Error("wrong about a reader at the gate")
	}
	if !a.unlockNow() {
		t.Error("unlockNow failed")
	}
	askAgain(a)
	if c.tryNow(exclusive) || a.tryNow(exclusive) || !c.tryNow(shared) || !c.unlockNow() {
		t.Error("tryNow is wrong about a reader at the gate")
	}
	b.withdraw()

	if !a.tryNow(exclusive) {
		t.Error("tryNow failed after the reader left the gate")
	}
	a.lockedAt = clock() - 2*handOnTime
	if a.handOnNow() {
		t.Error("a lock is handed on for too long")
	}
	a.unlock()
	remove(t, path)
	if a.tryNow(shared) {
		t.Error("tryNow locked a file that is gone")
	}
}
