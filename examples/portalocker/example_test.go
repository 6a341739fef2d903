package portalocker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/lockedfile"
	"github.com/interlock-go/interlock/pidfile"
)

// Each comment shows the Python code, and the example below it the Go code.

var ctx = context.Background()

// path returns the path of a file in a new directory.
func path(name string) string {
	return filepath.Join(interlock.Must(os.MkdirTemp("", "interlock-example-*")), name)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// portalocker.lock(f, LockFlags.EXCLUSIVE); portalocker.unlock(f)
func Example_lockExclusive() {
	f := interlock.Must(os.Create(path("data")))
	defer f.Close()
	check(interlock.Lock(ctx, f))
	fmt.Println("locked")
	check(interlock.Unlock(f))
	// Output: locked
}

// portalocker.lock(f, LockFlags.SHARED)
func Example_lockShared() {
	f := interlock.Must(os.Create(path("data")))
	defer f.Close()
	check(interlock.RLock(ctx, f))
	fmt.Println("other readers can lock it too")
	check(interlock.Unlock(f))
	// Output: other readers can lock it too
}

// portalocker.lock(f, LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
// portalocker.lock(f, LockFlags.SHARED | LockFlags.NON_BLOCKING)
// except portalocker.AlreadyLocked
func Example_lockNonBlocking() {
	f := interlock.Must(os.Create(path("data")))
	defer f.Close()
	other := interlock.Must(os.Open(f.Name()))
	defer other.Close()
	check(interlock.TryRLock(other))

	fmt.Println(errors.Is(interlock.TryLock(f), interlock.ErrLocked))
	fmt.Println(interlock.TryRLock(f))
	// Output:
	// true
	// <nil>
}

// portalocker.lock(f, LockFlags.UNBLOCK)
func Example_unblock() {
	f := interlock.Must(os.Create(path("data")))
	defer f.Close()
	other := interlock.Must(os.Open(f.Name()))
	defer other.Close()
	check(interlock.Lock(ctx, f))
	check(interlock.Unlock(f))

	fmt.Println(interlock.TryRLock(other))
	// Output: <nil>
}

// except portalocker.FileToLarge
func Example_largeFile() {
	f := interlock.Must(os.Create(path("data")))
	defer f.Close()
	check(interlock.Lock(ctx, f))
	check(f.Truncate(1 << 32)) // a sparse file, which takes no space

	other := interlock.Must(os.Open(f.Name()))
	defer other.Close()
	fmt.Println(errors.Is(interlock.TryLock(other), interlock.ErrLocked))
	// Output: true
}

// with portalocker.Lock(filename, timeout=0.01)
// except portalocker.LockException
func Example_lockTimeout() {
	name := path("app.lock")
	holder := interlock.Must(interlock.NewFileRWMutex(name)) // usually in another process
	holder.Lock()

	mu := interlock.Must(interlock.NewFileRWMutex(name))
	ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	err := mu.LockContext(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

// portalocker.Lock(filename, check_interval=0.05), where waits poll
func Example_checkInterval() {
	mu := interlock.Must(interlock.NewFileRWMutex(path("app.lock"),
		interlock.WithPollInterval(time.Millisecond, 50*time.Millisecond)))
	defer mu.Close()
	mu.Lock()
	defer mu.Unlock()
	fmt.Println("locked")
	// Output: locked
}

// portalocker.Lock(filename, fail_when_locked=True)
func Example_failWhenLocked() {
	name := path("app.lock")
	holder := interlock.Must(interlock.NewFileRWMutex(name)) // usually in another process
	holder.Lock()

	mu := interlock.Must(interlock.NewFileRWMutex(name))
	fmt.Println(errors.Is(mu.TryLockContext(ctx), interlock.ErrLocked))
	// Output: true
}

// with portalocker.Lock(filename, mode) as f
//
// The modes are "r", "r+", "a", and "w", which truncates under the lock.
func Example_lockAndOpen() {
	name := path("data")
	f := interlock.Must(lockedfile.OpenFile(ctx, name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644))
	fmt.Fprint(f, "written under the lock")
	check(f.Close()) // also unlocks

	f = interlock.Must(lockedfile.OpenFile(ctx, name, os.O_RDONLY, 0)) // a shared lock
	defer f.Close()
	data := make([]byte, 7)
	f.Read(data)
	fmt.Println(string(data))
	// Output: written
}

// portalocker.RLock(filename)
func Example_rlock() {
	mu := interlock.Must(interlock.NewFileRMutex(path("app.lock")))
	defer mu.Close()
	err := mu.Do(ctx, func(ctx context.Context) error {
		return mu.Do(ctx, func(context.Context) error {
			fmt.Println("locked twice")
			return nil
		})
	})
	fmt.Println(err)
	// Output:
	// locked twice
	// <nil>
}

// with portalocker.BoundedSemaphore(2, name="gpu", directory=dir, timeout=5)
func Example_boundedSemaphore() {
	gpus := interlock.Must(interlock.NewFileSemaphore(path("gpu"), 2)) // uses the same files
	defer gpus.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := gpus.Acquire(ctx, 1); err != nil {
		fmt.Println(err)
		return
	}
	defer gpus.Release(1)
	fmt.Println("one of two")
	// Output: one of two
}

// with portalocker.TemporaryFileLock(filename)
//
// The file exists as long as it is locked.
func Example_temporaryFileLock() {
	name := path("app.lock")
	f := interlock.Must(pidfile.Create(name)) // contains the process ID
	_, err := pidfile.Create(name)
	fmt.Println(errors.Is(err, interlock.ErrLocked))
	check(f.Close())
	_, err = os.Stat(name)
	fmt.Println(errors.Is(err, os.ErrNotExist))
	// Output:
	// true
	// true
}

// with portalocker.PidFileLock(filename) as pid
func Example_pidFileLock() {
	name := path("app.pid")
	f := interlock.Must(pidfile.Create(name))
	defer f.Close()

	_, err := pidfile.Create(name) // usually in another process
	var running *pidfile.RunningError
	fmt.Println(errors.As(err, &running) && running.PID == os.Getpid())

	pid, runs, err := pidfile.Read(name)
	fmt.Println(pid == os.Getpid(), runs, err)
	// Output:
	// true
	// true true <nil>
}

// with portalocker.open_atomic(filename) as f
func Example_openAtomic() {
	name := path("data")
	check(lockedfile.Write(ctx, name, []byte("all or nothing"), 0o644))
	check(lockedfile.Write(ctx, name, []byte("and again"), 0o644)) // replaces a file, too
	fmt.Println(string(interlock.Must(lockedfile.Read(ctx, name))))
	// Output: and again
}

// with portalocker.Lock(filename, "w") as f:
//
//	f.write("new"); f.flush(); os.fsync(f.fileno())
func Example_lockedWrite() {
	name := path("data")
	check(lockedfile.Write(ctx, name, []byte("new"), 0o644))
	fmt.Println(string(interlock.Must(os.ReadFile(name))))
	// Output: new
}

// with portalocker.Lock(filename, "a") as f: f.write("one\n")
func Example_lockedAppend() {
	name := path("log")
	check(lockedfile.Append(ctx, name, []byte("one\n"), 0o644))
	check(lockedfile.Append(ctx, name, []byte("two\n"), 0o644))
	fmt.Print(string(interlock.Must(os.ReadFile(name))))
	// Output:
	// one
	// two
}

// with portalocker.Lock(filename, "r", flags=LockFlags.SHARED) as f: f.read()
func Example_lockedRead() {
	name := path("data")
	check(os.WriteFile(name, []byte("contents"), 0o644))
	fmt.Println(string(interlock.Must(lockedfile.Read(ctx, name))))
	// Output: contents
}

// with portalocker.Lock(filename, "w", fail_when_locked=True) as f: f.write()
func Example_tryWrite() {
	name := path("data")
	f := interlock.Must(lockedfile.OpenFile(ctx, name, os.O_RDWR|os.O_CREATE, 0o644)) // usually in another process
	defer f.Close()
	fmt.Println(errors.Is(lockedfile.TryWrite(name, []byte("new"), 0o644), interlock.ErrLocked))
	// Output: true
}

// with portalocker.Lock(filename, "r+") as f:
//
//	data = json.load(f); …; f.seek(0); f.truncate(); json.dump(data, f)
func Example_readModifyWriteJSON() {
	name := path("counters.json")
	for range 3 {
		check(lockedfile.TransformJSON(ctx, name, 0o644, func(counters *map[string]int) error {
			if *counters == nil {
				*counters = map[string]int{}
			}
			(*counters)["visits"]++
			return nil
		}))
	}
	fmt.Print(string(interlock.Must(lockedfile.Read(ctx, name))))
	// Output:
	// {
	// 	"visits": 3
	// }
}

// except portalocker.LockException, because the file system has no locks
func Example_noLocks() {
	switch err := interlock.Probe(os.TempDir()); {
	case errors.Is(err, errors.ErrUnsupported):
		fmt.Println("no locks on this file system")
	case err != nil:
		fmt.Println(err) // says which guarantee does not hold
	default:
		fmt.Println("locks work")
	}
	// Output: locks work
}
