package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
)

// ErrLocked means that a lock is not to be had now, since somebody else holds it or waits for it.
// Errors of Try functions match it.
var ErrLocked = errors.New("already locked")

// Lock takes an exclusive lock on f, a file that the caller has opened, and waits until it
// can or ctx ends.
//
// Lock, [RLock], [TryLock], [TryRLock] and [Unlock] are the plain locks of the operating
// system: on Unix flock(2) on the whole file. The lock belongs to the open file that f stands
// for. Everything that opened the file anew is excluded, in this and in other
// processes, and only that: goroutines that use one f do not exclude each other, and must not call
// these functions for it at the same time, or a cancelled wait of one undoes the lock of another.
// Readers can starve writers. Nobody looks whether the file is still at its path. For all of that there is
// [FileRWMutex].
//
// To lock an f that is locked already changes the mode of the lock. This is not atomic:
// others can have the lock in between, and if it fails, the old lock is gone.
//
// To wait takes a copy of the descriptor of f, and to close that ends the process's fcntl(2)
// locks of the file, if there are any.
//
// In Windows what is in a file can be read and written while it is locked: the lock is on a byte that no
// file reaches. f must be open for reading or for writing; with [os.O_APPEND] alone it cannot be locked there.
//
// The lock ends with [Unlock], with f.Close, or with the process. While a child process is being
// started, only Unlock ends it at once.
//
// If ctx ends first, and also if it has ended already, the error is ctx.Err(), and f is open
// and not locked. Other errors are an [*fs.PathError]; they match [errors.ErrUnsupported] if the
// file cannot be locked, and [fs.ErrClosed] if f is closed.
//
// On a file system that does not answer a cancelled wait, Lock returns nevertheless. Until the
// answer comes and is undone, another Lock of f waits and a TryLock fails. But a file system
// that leaves even calls unanswered that do not wait holds up Lock, as it does not FileRWMutex.
func Lock(ctx context.Context, f *os.File) error { return lockOpenFile(ctx, f, exclusive) }

// RLock takes a shared lock on f, and waits until it can or ctx ends. For
// everything else see [Lock].
func RLock(ctx context.Context, f *os.File) error { return lockOpenFile(ctx, f, shared) }

// TryLock takes an exclusive lock on f if it can do so at once. If not, the error matches
// [ErrLocked]. For everything else see [Lock].
func TryLock(f *os.File) error { return tryLockOpenFile(f, exclusive) }

// TryRLock takes a shared lock on f if it can do so at once. If not, the error matches
// [ErrLocked]. For everything else see [Lock].
func TryRLock(f *os.File) error { return tryLockOpenFile(f, shared) }

// Unlock gives up the lock on f. It is no error if f is not locked.
func Unlock(f *os.File) error {
	err := withHandle(f, func(h handle) error {
		raceRelease(h)
		return h.lockError(h.unlock())
	})
	return fileError("unlock", f, err)
}

func lockOpenFile(ctx context.Context, f *os.File, mode hold) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if answered, ok := unanswered.Load(f); ok {
		select {
		case <-answered.(chan struct{}):
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	try := func() error { return withHandle(f, func(h handle) error { return h.tryLock(mode) }) }
	err := try()
	if err == ErrLocked {
		err = waitOpenFile(ctx, f, mode)
	}
	if err == errCannotWait {
		err = poll(ctx, defaultPollInterval, try)
	}
	return lockedOpenFile(ctx, f, mode, err)
}

func tryLockOpenFile(f *os.File, mode hold) error {
	err := ErrLocked
	if _, ok := unanswered.Load(f); !ok {
		err = withHandle(f, func(h handle) error { return h.tryLock(mode) })
	}
	return lockedOpenFile(context.Background(), f, mode, err)
}

// lockedOpenFile ends a call that has locked f, if err is nil.
func lockedOpenFile(ctx context.Context, f *os.File, mode hold, err error) error {
	switch {
	case err == nil:
		// That it is still open also says that it is f whose lock we have.
		err = withHandle(f, func(h handle) error { raceAcquire(h); return nil })
	case ended(ctx, err):
		return err
	}
	return fileError(mode.op(), f, err)
}

// unanswered has a channel for every [*os.File] with a wait that has been cancelled and
// still goes on in the kernel. The channel is closed when the wait has ended and what it
// has brought has been undone.
var unanswered sync.Map

// waitOpenFile waits in the kernel's queue, through a descriptor of our own, so that f can be
// closed meanwhile.
func waitOpenFile(ctx context.Context, f *os.File, mode hold) error {
	var own handle
	err := withHandle(f, func(h handle) (err error) {
		own, err = h.dup()
		return err
	})
	if err != nil {
		return errCannotWait
	}
	own.setLocal()
	answered := make(chan struct{})
	err = own.waitLock(ctx, mode, func() {
		own.unlock()
		own.close()
		close(answered)
		unanswered.CompareAndDelete(f, answered)
	})
	if err == errAbandoned {
		unanswered.Store(f, answered)
		select {
		case <-answered: // already, perhaps before it was stored
			unanswered.CompareAndDelete(f, answered)
		default:
		}
		return ctx.Err()
	}
	if err != nil {
		own.unlock() // we may have got it after all
	}
	own.close()
	return err
}

// withHandle calls call with the handle of f, which stays open meanwhile.
func withHandle(f *os.File, call func(handle) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if conn.Control(func(fd uintptr) { callErr = call(fileHandle(fd)) }) != nil {
		return fs.ErrClosed
	}
	return callErr
}

func fileError(op string, f *os.File, err error) error {
	var pathErr *fs.PathError
	if err == nil || errors.As(err, &pathErr) {
		return err
	}
	name := ""
	if f != nil {
		name = f.Name()
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
