package gofrsflock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/interlock-go/interlock"
)

// Each comment shows the code with gofrs/flock, and the example below it the
// code with this package.

var ctx = context.Background()

// lockPath returns the path of a lock file in a new directory.
func lockPath() string {
	return filepath.Join(interlock.Must(os.MkdirTemp("", "interlock-example-*")), "app.lock")
}

// open returns an object for the lock file at path.
func open(path string) *interlock.FileRWMutex {
	return interlock.Must(interlock.NewFileRWMutex(path))
}

// lock := flock.New(path)
func Example_new() {
	mu, err := interlock.NewFileRWMutex(lockPath())
	if err != nil {
		fmt.Println(err) // the file cannot be opened or created
		return
	}
	defer mu.Close()
	fmt.Println("ready")
	// Output: ready
}

// lock := flock.New(path, flock.SetPermissions(0o644))
func Example_setPermissions() {
	path := lockPath()
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithPerm(0o644)))
	defer mu.Close()
	info, err := os.Stat(path)
	fmt.Println(info.Mode().IsRegular(), err)
	// Output: true <nil>
}

// lock := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR)), to lock on NFS
func Example_setFlag() {
	mu := open(lockPath()) // opens the file for reading and writing
	defer mu.Close()
	fmt.Println(mu.TryLock())
	mu.Unlock()
	// Output: true
}

// err := lock.Lock()
func Example_lock() {
	mu := open(lockPath())
	defer mu.Close()
	if err := mu.LockContext(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer mu.Unlock()
	fmt.Println("locked")
	// Output: locked
}

// err := lock.RLock()
func Example_rLock() {
	mu := open(lockPath())
	defer mu.Close()
	if err := mu.RLockContext(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer mu.RUnlock()
	fmt.Println("other readers can lock it too")
	// Output: other readers can lock it too
}

// ok, err := lock.TryLock()
func Example_tryLock() {
	path := lockPath()
	holder := open(path) // usually in another process
	holder.Lock()

	mu := open(path)
	switch err := mu.TryLockContext(ctx); {
	case errors.Is(err, interlock.ErrLocked):
		fmt.Println("not locked") // ok is false
	case err != nil:
		fmt.Println(err)
	default:
		defer mu.Unlock()
		fmt.Println("locked")
	}
	// Output: not locked
}

// ok, err := lock.TryRLock()
func Example_tryRLock() {
	path := lockPath()
	holder := open(path) // usually in another process
	holder.RLock()

	mu := open(path)
	fmt.Println(mu.TryRLockContext(ctx))
	fmt.Println(errors.Is(mu.TryLockContext(ctx), interlock.ErrLocked))
	mu.RUnlock()
	// Output:
	// <nil>
	// true
}

// ok, err := lock.TryLockContext(ctx, 10*time.Millisecond), which waits
func Example_tryLockContext() {
	path := lockPath()
	holder := open(path) // usually in another process
	holder.Lock()

	mu := open(path)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	err := mu.LockContext(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// ok, err := lock.TryRLockContext(ctx, 10*time.Millisecond), which waits
func Example_tryRLockContext() {
	path := lockPath()
	holder := open(path) // usually in another process
	holder.Lock()
	time.AfterFunc(10*time.Millisecond, holder.Unlock)

	mu := open(path)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fmt.Println(mu.RLockContext(ctx))
	mu.RUnlock()
	// Output: <nil>
}

// err := lock.Unlock()
func Example_unlock() {
	mu := open(lockPath())
	defer mu.Close()

	mu.Lock()
	mu.Unlock() // a second call would panic

	mu.RLock()
	mu.RUnlock() // Unlock would panic
	fmt.Println(mu.TryLock())
	mu.Unlock()
	// Output: true
}

// err := lock.Close()
func Example_close() {
	mu := open(lockPath())
	mu.Lock()
	fmt.Println("closed while locked:", mu.Close() == nil)
	mu.Unlock()
	fmt.Println("closed:", mu.Close() == nil)
	fmt.Println("usable:", !errors.Is(mu.LockContext(ctx), os.ErrClosed))
	// Output:
	// closed while locked: false
	// closed: true
	// usable: false
}

// if !lock.Locked() { err := lock.Lock() }
//
// Functions that lock can call each other if they pass an owner on.
func Example_locked() {
	mu := interlock.Must(interlock.NewFileRMutex(lockPath()))
	defer mu.Close()
	err := mu.Do(ctx, func(ctx context.Context) error {
		return mu.Do(ctx, func(ctx context.Context) error {
			owner, _ := interlock.OwnerFromContext(ctx)
			fmt.Println("locked", mu.Depth(owner), "times")
			return nil
		})
	})
	fmt.Println(err)
	// Output:
	// locked 2 times
	// <nil>
}

// lock.Path(), lock.String()
func Example_path() {
	mu := open(lockPath())
	defer mu.Close()
	fmt.Println(filepath.Base(mu.Path()))
	// Output: app.lock
}

// info, err := lock.Stat()
func Example_stat() {
	mu := open(lockPath())
	defer mu.Close()
	info, err := os.Stat(mu.Path())
	fmt.Println(info.Size(), err)
	// Output: 0 <nil>
}
