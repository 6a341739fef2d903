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

func tempDir() string { return interlock.Must(os.MkdirTemp("", "interlock-example-*")) }

func Example() {
	mu, err := interlock.NewFileRWMutex(filepath.Join(tempDir(), "app.lock"))
	if err != nil {
		fmt.Println(err) // the file cannot be opened or created
		return
	}
	defer mu.Close()

	mu.Lock()
	fmt.Println("alone on this machine")
	mu.Unlock()
	// Output: alone on this machine
}

// A request that has a deadline waits no longer than that.
func ExampleFileRWMutex_LockContext() {
	path := filepath.Join(tempDir(), "app.lock")
	other := interlock.Must(interlock.NewFileRWMutex(path)) // in real life, in another process
	other.Lock()

	mu := interlock.Must(interlock.NewFileRWMutex(path))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err := mu.LockContext(ctx)
	fmt.Println(err)
	// Output: context deadline exceeded
}

// A job that need not run twice does not wait.
func ExampleFileRWMutex_TryLockContext() {
	path := filepath.Join(tempDir(), "job.lock")
	other := interlock.Must(interlock.NewFileRWMutex(path))
	other.Lock()

	mu := interlock.Must(interlock.NewFileRWMutex(path))
	switch err := mu.TryLockContext(context.Background()); {
	case errors.Is(err, interlock.ErrLocked):
		fmt.Println("runs already")
	case err != nil:
		fmt.Println(err)
	default:
		defer mu.Unlock()
		fmt.Println("runs")
	}
	// Output: runs already
}

func ExampleFileRWMutex_RLock() {
	mu := interlock.Must(interlock.NewFileRWMutex(filepath.Join(tempDir(), "config.lock")))
	defer mu.Close()

	mu.RLock()
	fmt.Println("other readers too:", mu.TryRLock(), "and a writer:", mu.TryLock())
	mu.RUnlock()
	mu.RUnlock()
	// Output: other readers too: true and a writer: false
}

// A file that is open anyway can be locked itself.
func ExampleLock() {
	f := interlock.Must(os.Create(filepath.Join(tempDir(), "data")))
	defer f.Close()

	if err := interlock.Lock(context.Background(), f); err != nil {
		fmt.Println(err)
		return
	}
	defer interlock.Unlock(f)
	fmt.Fprintln(f, "written under the lock")

	again := interlock.Must(os.Open(f.Name()))
	defer again.Close()
	fmt.Println(errors.Is(interlock.TryRLock(again), interlock.ErrLocked))
	// Output: true
}
