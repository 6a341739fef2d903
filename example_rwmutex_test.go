package interlock_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/interlock-go/interlock"
)

// Any number of readers share the lock. A writer has it alone.
func ExampleFileRWMutex() {
	mu := interlock.Must(interlock.NewFileRWMutex(filepath.Join(tempDir(), "config.lock")))
	defer mu.Close()

	mu.RLock()
	fmt.Println("another reader:", mu.TryRLock())
	fmt.Println("a writer:", mu.TryLock())
	mu.RUnlock()
	mu.RUnlock()
	fmt.Println("a writer, without readers:", mu.TryLock())
	mu.Unlock()
	// Output:
	// another reader: true
	// a writer: false
	// a writer, without readers: true
}

func ExampleNewFileRWMutex() {
	dir := tempDir()
	_, err := interlock.NewFileRWMutex(dir)
	fmt.Println("a directory is refused:", err != nil)

	mu, err := interlock.NewFileRWMutex(filepath.Join(dir, "app.lock"))
	fmt.Println("a new file:", err)
	defer mu.Close()
	// Output:
	// a directory is refused: true
	// a new file: <nil>
}

// A request with a deadline waits until then at most.
func ExampleFileRWMutex_LockContext() {
	path := filepath.Join(tempDir(), "app.lock")
	other := interlock.Must(interlock.NewFileRWMutex(path)) // usually, in another process
	other.Lock()

	mu := interlock.Must(interlock.NewFileRWMutex(path))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	fmt.Println(mu.LockContext(ctx))
	// Output: context deadline exceeded
}

// A job that another process is doing already need not wait.
func ExampleFileRWMutex_TryLockContext() {
	path := filepath.Join(tempDir(), "job.lock")
	other := interlock.Must(interlock.NewFileRWMutex(path)) // usually, in another process
	other.Lock()

	mu := interlock.Must(interlock.NewFileRWMutex(path))
	switch err := mu.TryLockContext(context.Background()); {
	case errors.Is(err, interlock.ErrLocked):
		fmt.Println("the job is already running")
	case err != nil:
		fmt.Println(err)
	default:
		defer mu.Unlock()
		fmt.Println("the job runs")
	}
	// Output: the job is already running
}

// A FileRWMutex is a [sync.Locker], and so is what RLocker returns.
func ExampleFileRWMutex_RLocker() {
	mu := interlock.Must(interlock.NewFileRWMutex(filepath.Join(tempDir(), "app.lock")))
	defer mu.Close()

	for _, l := range []sync.Locker{mu, mu.RLocker()} {
		l.Lock()
		fmt.Println("locked")
		l.Unlock()
	}
	// Output:
	// locked
	// locked
}

// Close does not change a lock that is in use.
func ExampleFileRWMutex_Close() {
	mu := interlock.Must(interlock.NewFileRWMutex(filepath.Join(tempDir(), "app.lock")))
	mu.Lock()
	fmt.Println("closed while locked:", mu.Close() == nil)
	mu.Unlock()
	fmt.Println("closed while unlocked:", mu.Close() == nil)
	// Output:
	// closed while locked: false
	// closed while unlocked: true
}
