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
	var pathErr *fs.PathError
	for op, err := range map[string]error{"lock": TryLock(g), "rlock": TryRLock(g)} {
		if !errors.Is(err, ErrLocked) || !errors.As(err, &pathErr) || pathErr.Op != op || pathErr.Path != g.Name() {
			t.Errorf("%s of a locked file: %v", op, err)
		}
	}
	waiter := start(func() error { return Lock(ctx, g) })
	pending(t, waiter)
	must(t, Unlock(f))
	must(t, finish(t, waiter))
	must(t, Unlock(g))
	must(t, RLock(ctx, f))
	must(t, TryRLock(g))
	if !errors.Is(TryLock(f), ErrLocked) {
		t.Error("a writer beside a reader")
	}
	must(t, Unlock(f))
	must(t, Unlock(f)) // not locked
	must(t, Unlock(g))
}

// A second lock of one file replaces the first, and one Unlock is enough.
func TestOpenFileChangesMode(t *testing.T) {
	f, g := openTwice(t)
	must(t, TryLock(f))
	must(t, TryLock(f))
	must(t, TryRLock(f))
	must(t, TryRLock(g))
	must(t, TryRLock(f))
	if !errors.Is(TryLock(f), ErrLocked) {
		t.Error("a writer beside a reader")
	}
	must(t, Unlock(f)) // of which the old lock may be left, or not
	must(t, TryLock(g))
	must(t, Unlock(g))
	must(t, TryLock(f))
}

// A cancelled wait leaves the file usable and unlocked.
func TestOpenFileCancel(t *testing.T) {
	f, g := openTwice(t)
	for range 100 {
		must(t, Lock(t.Context(), f))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Microsecond)
		if err := Lock(ctx, g); err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		if err := Lock(ctx, g); err != context.DeadlineExceeded { // done before
			t.Fatal(err)
		}
		cancel()
		must(t, Unlock(f))
		must(t, Lock(t.Context(), f)) // not kept by g
		_, err := g.WriteString("x")
		must(t, err)
		must(t, Unlock(f))
		must(t, Lock(t.Context(), g))
		must(t, Unlock(g))
	}
}

func TestOpenFileCancelRacesTheGrant(t *testing.T) {
	f, g := openTwice(t)
	for range 200 {
		must(t, Lock(t.Context(), f))
		ctx, cancel := context.WithCancel(t.Context())
		waiter := start(func() error { return Lock(ctx, g) })
		time.Sleep(200 * time.Microsecond)
		go cancel()
		must(t, Unlock(f))
		if finish(t, waiter) == nil {
			must(t, Unlock(g))
		}
		must(t, TryLock(f)) // g has it no more
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
		t.Errorf("closed while waiting: %v", err)
	}
	must(t, Lock(t.Context(), f)) // the wait has left nothing
	f.Close()
	var pathErr *fs.PathError
	for _, err := range []error{Lock(t.Context(), f), RLock(t.Context(), f), TryLock(f), TryRLock(f), Unlock(f)} {
		if !errors.Is(err, fs.ErrClosed) || !errors.As(err, &pathErr) {
			t.Errorf("closed before: %v", err)
		}
	}
	if err := TryLock(nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("nil: %v", err)
	}
}

// The race detector knows that the locks of two files for one inode exclude each other.
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
