package interlock

import (
	"context"
	"io/fs"
	"os"
	"sync"

	"github.com/interlock-go/interlock/internal/raceedge"
)

// Lock acquires an exclusive lock on f, a file that the caller has opened. It
// blocks until the lock is available or ctx is done.
//
// The lock belongs to the open file. On Unix, it is a flock(2) lock on the
// whole file. It excludes everyone who opened the file separately, in this
// process and in others. It does not exclude goroutines that use the same f.
// They must not call [Lock], [RLock], [TryLock], [TryRLock] or [Unlock] on f at
// the same time. Lock does not keep readers from starving writers, and does not
// check whether f is still the file at its path. A [FileRWMutex] does both.
//
// If ctx is done, even before the call, Lock returns ctx.Err() and has acquired
// nothing; f stays open. Any other error is an [*fs.PathError]. It matches
// [fs.ErrClosed] if f is closed, and [errors.ErrUnsupported] if the file system
// has no locks.
//
// The lock is released by [Unlock], by f.Close, or when the process ends. It is
// also released if f becomes unreachable, because the garbage collector then
// closes f. Locking a file that is already locked changes the mode of its lock.
// The change is not atomic: another process may acquire the lock in between. If
// the change fails, f may be unlocked.
//
// See docs/guarantees.md for fcntl(2) locks, for Windows, and for file systems
// that do not answer.
func Lock(ctx context.Context, f *os.File) error { return lockOpenFile(ctx, f, exclusive) }

// RLock acquires a shared lock on f. It blocks until the lock is available or
// ctx is done. It is otherwise like [Lock].
func RLock(ctx context.Context, f *os.File) error { return lockOpenFile(ctx, f, shared) }

// TryLock tries to acquire an exclusive lock on f without waiting for it. If
// the lock is not available, the error matches [ErrLocked]. TryLock is
// otherwise like [Lock].
func TryLock(f *os.File) error { return tryLockOpenFile(f, exclusive) }

// TryRLock tries to acquire a shared lock on f without waiting for it. If the
// lock is not available, the error matches [ErrLocked]. TryRLock is otherwise
// like [Lock].
func TryRLock(f *os.File) error { return tryLockOpenFile(f, shared) }

// Unlock releases the lock on f. Unlocking a file that is not locked is not an
// error.
func Unlock(f *os.File) error {
	err := withFile(f, func(s *sysFile) error {
		if raceedge.Enabled {
			raceedge.Release(s.number())
		}
		return s.lockError(s.unlock())
	})
	return fileError("unlock", f, err)
}

func lockOpenFile(ctx context.Context, f *os.File, m mode) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if answered, ok := unanswered.Load(f); ok {
		select {
		case <-answered.(chan struct{}):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	try := func() error { return withFile(f, func(s *sysFile) error { return s.tryLock(m) }) }
	err := try()
	if err == ErrLocked {
		err = waitOpenFile(ctx, f, m)
	}
	if err == errCannotWait {
		err = poll(ctx, defaultPollInterval, try)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return finishOpenFile(f, m, err)
}

func tryLockOpenFile(f *os.File, m mode) error {
	err := ErrLocked
	if _, ok := unanswered.Load(f); !ok {
		err = withFile(f, func(s *sysFile) error { return s.tryLock(m) })
	}
	return finishOpenFile(f, m, err)
}

// finishOpenFile completes a call that locked f, or failed with err.
func finishOpenFile(f *os.File, m mode, err error) error {
	if err == nil {
		// This fails if f was closed in the meantime, which released
		// the lock.
		err = withFile(f, func(s *sysFile) error {
			if raceedge.Enabled {
				raceedge.Acquire(s.number())
			}
			return nil
		})
	}
	return fileError(m.op(), f, err)
}

// unanswered has a channel for each [*os.File] with a canceled wait that still
// goes on in the kernel. The channel is closed when the wait has ended and its
// effect has been undone.
var unanswered sync.Map

// waitOpenFile waits in the kernel's queue. It waits on a descriptor of its
// own, so f can be closed at any time.
func waitOpenFile(ctx context.Context, f *os.File, m mode) error {
	var own *sysFile
	err := withFile(f, func(s *sysFile) (err error) {
		own, err = s.dup()
		return err
	})
	if err != nil {
		return errCannotWait
	}
	own.classify()
	answered := make(chan struct{})
	abandoned, err := own.waitKernel(ctx, m, func() {
		own.release()
		close(answered)
		unanswered.CompareAndDelete(f, answered)
	})
	if abandoned {
		unanswered.Store(f, answered)
		select {
		case <-answered: // the wait has ended, perhaps before the Store
			unanswered.CompareAndDelete(f, answered)
		default:
		}
		return err
	}
	if err != nil {
		own.unlock() // the lock may have been granted all the same
	}
	own.close()
	return err
}

// withFile calls call with f, and keeps f open until call returns.
func withFile(f *os.File, call func(*sysFile) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if conn.Control(func(fd uintptr) { callErr = call(callerFile(fd)) }) != nil {
		return fs.ErrClosed
	}
	return callErr
}

func fileError(op string, f *os.File, err error) error {
	name := ""
	if f != nil {
		name = f.Name()
	}
	return pathError(op, name, err)
}
