// Package lockedfile reads and changes files that several processes share. Each
// call locks the file itself, reads or changes it, and unlocks it.
//
//	err := lockedfile.Transform(ctx, "counter", 0o644, func(old []byte) ([]byte, error) {
//		n, _ := strconv.Atoi(string(old))
//		return strconv.AppendInt(nil, int64(n+1), 10), nil
//	})
//
// Processes that use this package do not lose each other's changes. Readers
// share the lock; a writer excludes all others.
//
// # Locks
//
// The lock is the one that [interlock.Lock] takes. On Unix that is flock(2) on
// the data file, so flock(1) and many other programs take part. There is no
// separate lock file.
//
// [Write], [TryWrite], [Transform] and [TransformJSON] replace the file, so a
// caller that waited for its lock may get the lock of the old file. This
// package notices that and moves on to the new file. A program that does not
// would write into a file that is gone. If such programs write the file, change
// it with [OpenFile] or [Append], which leave it in its place.
//
// # Crashes
//
// To replace a file, this package writes a temporary file beside it and renames
// that over it. If a process is killed or the disk is full, the file has either
// all of the old contents or all of the new ones. Even a reader that does not
// lock the file never sees a mix. The new file has the mode, the owner, the
// group and, on Linux, the access control list of the old one.
//
// When a call returns, the new contents are on the disk (fsync(2)), unless the
// context comes from [WithoutSync].
//
// A file that cannot be replaced is overwritten. That is always so on Windows.
// On Unix it happens, for example, if the directory is not writable, or if the
// new file cannot get the owner of the old one. If an overwrite fails, the old
// contents are written back, but a crash in the middle can leave a mix of old
// and new.
//
// # Errors
//
// If the context is done before the lock is acquired, the error is ctx.Err(),
// and nothing is changed. This includes a context that is done before the call.
// Only the wait for the lock ends with the context, not a file system that does
// not respond.
//
// All other errors are an [*fs.PathError] that names the file as the caller
// did, except those of a caller's function. They match [errors.ErrUnsupported]
// if the file cannot be locked. A directory, a FIFO or a device is refused.
//
// # Rare cases
//
// Symbolic and hard links, extended attributes, temporary files that a crash
// leaves, and special file systems are the subject of [docs/lockedfile.md].
//
// [docs/lockedfile.md]: https://github.com/interlock-go/interlock/blob/main/docs/lockedfile.md
package lockedfile

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"

	"github.com/interlock-go/interlock"
)

// WithoutSync returns a context with which the functions of this package do not
// wait until their changes are on the disk. That makes them faster, and just as
// safe if the process crashes.
//
// If the system crashes or loses power, however, the file may have its old
// contents, the new ones, none, or a mix, depending on the file system.
func WithoutSync(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutSync{}, true)
}

type withoutSync struct{}

// Read returns the contents of the named file. It blocks while another process
// changes the file. Readers do not block each other.
func Read(ctx context.Context, name string) ([]byte, error) {
	r := newReadRequest(ctx, "read", name, 0)
	f, err := r.open(os.O_RDONLY, nil)
	if err != nil {
		return nil, err
	}
	defer release(f.File)
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, r.pathError(err)
	}
	return data, nil
}

// Write replaces the contents of the named file with data. If there is no file,
// Write creates it with mode perm, before umask.
func Write(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	return newRequest(ctx, "write", name, perm).write(data)
}

// TryWrite is like [Write], but does not wait for the lock. If another process
// holds the lock, the error matches [interlock.ErrLocked].
func TryWrite(name string, data []byte, perm fs.FileMode) error {
	r := newRequest(context.Background(), "write", name, perm)
	r.lock = interlock.TryLock
	return r.write(data)
}

func (r *request) write(data []byte) error {
	return r.change(os.O_RDWR, data, func(f *file) error {
		if f.complete {
			return nil
		}
		return r.put(f, data)
	})
}

// Append adds data to the end of the named file. If there is no file, Append
// creates it with mode perm, before umask.
//
// Append writes to the file in its place. If it fails, the file has its old
// size again. If the process crashes, the file may end with only part of data.
func Append(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	r := newRequest(ctx, "append", name, perm)
	return r.change(appendFlags, data, func(f *file) error {
		if f.complete {
			return nil
		}
		if err := f.check(); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return err
		}
		if _, err = f.Write(data); err == nil {
			err = r.flush(f.File)
		}
		if err != nil {
			return undone(err, f.Truncate(info.Size()))
		}
		return nil
	})
}

// Transform calls f with the contents of the named file and replaces them with
// what f returns. It holds the lock for all of that time. If there is no file,
// f gets an empty slice, and Transform creates the file with mode perm, before
// umask.
//
// Transform calls f once. If f fails, Transform changes nothing and returns the
// error of f. If f panics, Transform changes nothing either. If ctx is done
// when f returns, Transform changes nothing and returns ctx.Err(). If f returns
// the old contents, Transform writes nothing.
//
// The function f may modify its argument. It must not use the file in any other
// way, because a call that locks the file would wait for itself.
//
// If the file did not exist, it is empty while f runs. A crash leaves the empty
// file behind. If Transform fails, it removes the file, except on Windows.
func Transform(ctx context.Context, name string, perm fs.FileMode, f func(old []byte) ([]byte, error)) error {
	r := newRequest(ctx, "transform", name, perm)
	return r.transform(f)
}

func (r *request) transform(f func(old []byte) ([]byte, error)) error {
	return r.change(os.O_RDWR, nil, func(file *file) error {
		old, err := io.ReadAll(file)
		if err != nil {
			return err
		}
		data, err := f(bytes.Clone(old))
		if err == nil {
			err = r.ctx.Err()
		}
		if err != nil {
			return callerError{err}
		}
		if bytes.Equal(old, data) {
			return nil
		}
		return r.put(file, data)
	})
}
