package interlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/interlock-go/interlock"
)

// tempDir returns a new directory for the lock files of an example.
func tempDir() string { return interlock.Must(os.MkdirTemp("", "interlock-example-*")) }

func Example() {
	mu, err := interlock.NewFileRWMutex(filepath.Join(tempDir(), "app.lock"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mu.Close()

	mu.Lock()
	fmt.Println("no other process holds the lock")
	mu.Unlock()
	// Output: no other process holds the lock
}

// Before a program relies on locks in a directory that its user chose, it can
// check that they work there.
func ExampleProbe() {
	dir := tempDir()
	switch err := interlock.Probe(dir); {
	case errors.Is(err, errors.ErrUnsupported):
		fmt.Println("this file system has no locks")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println("locks work")
	}
	// Output: locks work
}

func ExampleMust() {
	// In a program, this is usually a package-level variable.
	mu := interlock.Must(interlock.NewFileRWMutex(filepath.Join(tempDir(), "app.lock")))
	mu.Lock()
	defer mu.Unlock()
	fmt.Println("locked")
	// Output: locked
}

// Any file that a program has open can be locked.
func ExampleLock() {
	f := interlock.Must(os.Create(filepath.Join(tempDir(), "data")))
	defer f.Close()

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := interlock.Lock(ctx, f); err != nil {
		fmt.Println(err)
		return
	}
	defer interlock.Unlock(f)
	fmt.Fprintln(f, "written under the lock")
	fmt.Println("done")
	// Output: done
}

// Readers share a lock. They exclude writers.
func ExampleRLock() {
	path := filepath.Join(tempDir(), "data")
	f, g := interlock.Must(os.Create(path)), interlock.Must(os.Open(path))
	defer f.Close()
	defer g.Close()

	ctx := context.Background()
	fmt.Println(interlock.RLock(ctx, f), interlock.RLock(ctx, g))
	fmt.Println(errors.Is(interlock.TryLock(f), interlock.ErrLocked))
	// Output:
	// <nil> <nil>
	// true
}

// A try does not wait. Its error tells a lock that is held from other failures.
func ExampleTryLock() {
	path := filepath.Join(tempDir(), "data")
	f, other := interlock.Must(os.Create(path)), interlock.Must(os.Open(path))
	defer f.Close()
	defer other.Close()

	interlock.Must(0, interlock.Lock(context.Background(), other)) // usually, in another process
	switch err := interlock.TryLock(f); {
	case errors.Is(err, interlock.ErrLocked):
		fmt.Println("the file is locked")
	case err != nil:
		fmt.Println(err)
	default:
		defer interlock.Unlock(f)
	}
	// Output: the file is locked
}

func ExampleTryRLock() {
	path := filepath.Join(tempDir(), "data")
	f, other := interlock.Must(os.Create(path)), interlock.Must(os.Open(path))
	defer f.Close()
	defer other.Close()

	interlock.Must(0, interlock.RLock(context.Background(), other))
	fmt.Println("beside a reader:", interlock.TryRLock(f))
	// Output: beside a reader: <nil>
}

func ExampleUnlock() {
	path := filepath.Join(tempDir(), "data")
	f, other := interlock.Must(os.Create(path)), interlock.Must(os.Open(path))
	defer f.Close()
	defer other.Close()

	fmt.Println(interlock.TryLock(f))
	fmt.Println(interlock.Unlock(f))
	fmt.Println(interlock.TryLock(other))
	// Output:
	// <nil>
	// <nil>
	// <nil>
}
