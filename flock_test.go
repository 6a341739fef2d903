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

func openTwice(t *testing.T) (f, g *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	for _, p := range []**os.File{&f, &g} {
		var err error
		*p, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		must(t, err)
		t.Cleanup(func() { (*p).Close() })
	}
	return f, g
}

func TestOpenFile(t *testing.T) {
	f, g := openTwice(t)
	ctx := t.Context()
	must(t, Lock(ctx, f))
	wantPathError(t, TryLock(g), "lock", g.Name(), ErrLocked)
	wantPathError(t, TryRLock(g), "rlock", g.Name(), ErrLocked)
	waiter := start(func() error { return Lock(ctx, g) })
	pending(t, waiter)
	must(t, Unlock(f))
	must(t, finish(t, waiter))
	must(t, Unlock(g))
	must(t, RLock(ctx, f))
	must(t, TryRLock(g))
	if !errors.Is(TryLock(f), ErrLocked) {
		t.Error("a writer holds the lock beside a reader")
	}
	must(t, Unlock(f))
	must(t, Unlock(f)) // not locked
	must(t, Unlock(g))
}

// A second lock of one file replaces the first, so that one Unlock is enough.
func TestOpenFileChangesMode(t *testing.T) {
	f, g := openTwice(t)
	must(t, TryLock(f))
	must(t, TryLock(f))
	must(t, TryRLock(f))
	must(t, TryRLock(g))
	must(t, TryRLock(f))
	if !errors.Is(TryLock(f), ErrLocked) {
		t.Error("a writer holds the lock beside a reader")
	}
	must(t, Unlock(f)) // the failed TryLock may have released the lock, or not
	must(t, TryLock(g))
	must(t, Unlock(g))
	must(t, TryLock(f))
}

// A canceled wait leaves the file open and unlocked.
func TestOpenFileCancel(t *testing.T) {
	f, g := openTwice(t)
	for range rounds(100) {
		must(t, Lock(t.Context(), f))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
		if err := Lock(ctx, g); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		if err := Lock(ctx, g); err != context.DeadlineExceeded { // done before the call
			t.Fatal(err)
		}
		cancel()
		must(t, Unlock(f))
		must(t, Lock(t.Context(), f)) // g does not have it
		_, err := g.WriteString("x")
		must(t, err)
		must(t, Unlock(f))
		must(t, Lock(t.Context(), g))
		must(t, Unlock(g))
	}
}

func TestOpenFileCancelRacesWithGrant(t *testing.T) {
	f, g := openTwice(t)
	for range rounds(200) {
		must(t, Lock(t.Context(), f))
		ctx, cancel := context.WithCancel(t.Context())
		waiter := start(func() error { return Lock(ctx, g) })
		time.Sleep(200 * time.Microsecond)
		go cancel()
		must(t, Unlock(f))
		if finish(t, waiter) == nil {
			must(t, Unlock(g))
		}
		must(t, TryLock(f)) // g does not have it
		must(t, Unlock(f))
	}
}

func TestOpenFileClosed(t *testing.T) {
	f, g := openTwice(t)
	must(t, Lock(t.Context(), f))
	waiter := start(func() error { return Lock(t.Context(), g) })
	pending(t, waiter)
	g.Close()
	must(t, Unlock(f))
	if err := finish(t, waiter); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Lock of a file that is closed while it waits = %v", err)
	}
	must(t, Lock(t.Context(), f)) // the wait left nothing behind
	f.Close()
	var pathErr *fs.PathError
	for _, err := range []error{Lock(t.Context(), f), RLock(t.Context(), f), TryLock(f), TryRLock(f), Unlock(f)} {
		if !errors.Is(err, fs.ErrClosed) || !errors.As(err, &pathErr) {
			t.Errorf("a call on a closed file = %v", err)
		}
	}
	if err := TryLock(nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("TryLock(nil) = %v", err)
	}
}

// To close a file releases the lock even if the file waited for it, in the
// kernel and by a descriptor of its own.
func TestOpenFileCloseReleases(t *testing.T) {
	for range 30 {
		f, g := openTwice(t)
		must(t, Lock(t.Context(), f))
		waiter := start(func() error {
			if err := Lock(t.Context(), g); err != nil {
				return err
			}
			g.Close()
			return TryLock(f)
		})
		time.Sleep(time.Millisecond)
		must(t, Unlock(f))
		must(t, finish(t, waiter))
	}
}

// The race detector knows that the locks of two open files exclude each other
// if the files are one.
func TestOpenFileHappensBefore(t *testing.T) {
	f, g := openTwice(t)
	n := 0
	hammer(t, 2, 300, func(i int) {
		own := []*os.File{f, g}[i]
		if err := Lock(t.Context(), own); err != nil {
			t.Error(err)
		}
		n++
		if err := Unlock(own); err != nil {
			t.Error(err)
		}
	})
	if n != 2*300 {
		t.Errorf("%d increments left of %d", n, 2*300)
	}
}
