package interlock_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/interlock-go/interlock"
)

// Options are passed to a constructor.
func ExampleOption() {
	path := filepath.Join(tempDir(), "app.lock")
	opts := []interlock.Option{
		interlock.WithPerm(0o640),
		interlock.WithPollInterval(time.Millisecond, 100*time.Millisecond),
	}
	mu := interlock.Must(interlock.NewFileRWMutex(path, opts...))
	fmt.Println(mu.Close())
	// Output: <nil>
}

// Where the system polls, a process that waits for long can poll less often.
func ExampleWithPollInterval() {
	path := filepath.Join(tempDir(), "app.lock")
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithPollInterval(time.Millisecond, time.Second)))
	defer mu.Close()

	_, err := interlock.NewFileRWMutex(path, interlock.WithPollInterval(time.Second, time.Millisecond))
	fmt.Println("max below min:", errors.Is(err, fs.ErrInvalid))
	// Output: max below min: true
}

// On Windows, programs that lock the first bytes of a file, such as
// gofrs/flock, take part in this lock. On other systems they always do.
func ExampleWithWholeFile() {
	path := filepath.Join(tempDir(), "app.lock")
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithWholeFile()))
	defer mu.Close()

	mu.Lock()
	fmt.Println("locked")
	mu.Unlock()
	// Output: locked
}

// A trace reports what happens to a lock.
func ExampleWithTrace() {
	trace := &interlock.Trace{
		WaitStart: func(lock interlock.TraceInfo) { fmt.Println("waits, to read:", lock.Shared) },
		Acquired: func(lock interlock.TraceInfo, waited time.Duration) {
			fmt.Println("acquired", filepath.Base(lock.Path), "after a wait:", waited > 0)
		},
		Released: func(lock interlock.TraceInfo, held time.Duration) { fmt.Println("released") },
	}
	path := filepath.Join(tempDir(), "app.lock")
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithTrace(trace)))
	defer mu.Close()

	mu.Lock()
	mu.Unlock()
	// Output:
	// acquired app.lock after a wait: false
	// released
}

// The same hooks can serve locks of several types.
func ExampleTraceInfo() {
	trace := &interlock.Trace{Acquired: func(lock interlock.TraceInfo, waited time.Duration) {
		fmt.Println(filepath.Base(lock.Path), "shared:", lock.Shared, "units:", lock.Units)
	}}
	dir := tempDir()
	mu := interlock.Must(interlock.NewFileRWMutex(filepath.Join(dir, "app.lock"), interlock.WithTrace(trace)))
	gpus := interlock.Must(interlock.NewFileSemaphore(filepath.Join(dir, "gpu"), 4, interlock.WithTrace(trace)))
	defer mu.Close()
	defer gpus.Close()

	mu.RLock()
	mu.RUnlock()
	if gpus.TryAcquire(3) {
		gpus.Release(3)
	}
	// Output:
	// app.lock shared: true units: 1
	// gpu shared: false units: 3
}
