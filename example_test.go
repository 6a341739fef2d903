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

// Locked functions that call each other pass on who they are by the context.
func ExampleFileRMutex_Do() {
	mu := interlock.Must(interlock.NewFileRMutex(filepath.Join(tempDir(), "account.lock")))
	defer mu.Close()

	withdraw := func(ctx context.Context) error {
		return mu.Do(ctx, func(ctx context.Context) error {
			o, _ := interlock.OwnerFromContext(ctx)
			fmt.Println("withdraw, locked", mu.Depth(o), "times")
			return nil
		})
	}
	transfer := func(ctx context.Context) error {
		return mu.Do(ctx, func(ctx context.Context) error {
			fmt.Println("transfer")
			return withdraw(ctx) // does not wait for itself
		})
	}
	fmt.Println(transfer(context.Background()))
	// Output:
	// transfer
	// withdraw, locked 2 times
	// <nil>
}

// Without contexts, the owner is passed as it is.
func ExampleFileRMutex() {
	mu := interlock.Must(interlock.NewFileRMutex(filepath.Join(tempDir(), "account.lock")))
	defer mu.Close()

	me, other := interlock.NewOwner(), interlock.NewOwner()
	mu.Lock(me)
	mu.Lock(me)
	fmt.Println(mu.TryLock(other))
	mu.Unlock(me)
	mu.Unlock(me)
	fmt.Println(mu.TryLock(other))
	mu.Unlock(other)
	// Output:
	// false
	// true
}

// Four units for all processes of the machine, of which a big job takes three.
func ExampleFileSemaphore() {
	gpus, err := interlock.NewFileSemaphore(filepath.Join(tempDir(), "gpu"), 4)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gpus.Close()

	if err := gpus.Acquire(context.Background(), 3); err != nil {
		fmt.Println(err) // the context's, or what the system says
		return
	}
	fmt.Println(gpus.TryAcquire(2), gpus.TryAcquire(1))
	gpus.Release(4)
	// Output: false true
}

// However many processes do this at once, two functions run at a time.
func ExampleFileSemaphore_Group() {
	builds := interlock.Must(interlock.NewFileSemaphore(filepath.Join(tempDir(), "builds"), 2))
	defer builds.Close()

	g, ctx := builds.Group(context.Background())
	for _, target := range []string{"a", "b", "c", "bad", "d"} {
		g.Go(func() error {
			if target == "bad" {
				return errors.New("cannot build " + target)
			}
			return ctx.Err()
		})
	}
	fmt.Println(g.Wait())
	// Output: cannot build bad
}

// Before a program relies on locks in a directory that somebody else has chosen.
func ExampleProbe() {
	dir := tempDir()
	switch err := interlock.Probe(dir); {
	case errors.Is(err, errors.ErrUnsupported):
		fmt.Println("no locks on this file system")
	case err != nil:
		fmt.Println(err) // what does not work
	default:
		fmt.Println("locks work")
	}
	// Output: locks work
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
