// Package kit has helpers for tests of locks: goroutines that are expected to
// wait, processes that lock on request, and what tests need of the system.
package kit

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"fmt"
)

// Patience is how long tests wait for something that happens unless the code is
// broken, however slow the machine is.
const Patience = 60 * time.Second

// Moment is how long tests watch for something that must not happen. It is long
// enough to see it nearly always if it can happen.
const Moment = 50 * time.Millisecond

// Must fails the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Start runs call on a goroutine, and returns a channel that receives its
// result.
func Start(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// Finish waits for a result of [Start].
func Finish(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(Patience):
		t.Fatal("the call still waits")
		return nil
	}
}

// Pending fails the test if a call of [Start] returns within a [Moment].
func Pending(t testing.TB, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("the call did not wait: %v", err)
	case <-time.After(Moment):
	}
}

// WaitFor waits until cond reports true. The text what completes "timed out: ".
func WaitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > Patience {
			t.Fatal("timed out: " + what)
		}
	}
}

// Hammer calls f n times on each of the given number of goroutines. The
// argument of f is the number of the goroutine.
func Hammer(t testing.TB, goroutines, n int, f func(i int)) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range n {
				f(i)
			}
		}()
	}
	wg.Wait()
}

// TempDir returns a directory for the test. On NFS the directory remains: an
// open file there, if only because a call has not returned yet, cannot be
// removed.
func TempDir(t testing.TB) string {
	t.Helper()
	if os.Getenv("INTERLOCK_NFS") == "" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("", "test-*")
	Must(t, err)
	return dir
}

// Listing describes all files in a directory, or a single file.
func Listing(t testing.TB, path string) string {
	t.Helper()
	var s strings.Builder
	Must(t, filepath.WalkDir(path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintln(&s, path, info.Mode(), info.Size(), info.ModTime())
		}
		return err
	}))
	return s.String()
}
