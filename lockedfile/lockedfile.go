// Package lockedfile reads and changes files that several processes change: each call locks the
// file itself, reads or changes it, and unlocks it.
//
//	err := lockedfile.Transform(ctx, "counter", 0o644, func(old []byte) ([]byte, error) {
//		n, _ := strconv.Atoi(string(old))
//		return strconv.AppendInt(nil, int64(n+1), 10), nil
//	})
//
// The lock is that of [interlock.Lock], on Unix flock(2) on the data file, as flock(1) and many
// programs take it. No lock file lies beside it.
//
// # Crashes
//
// [Write], [TryWrite], [Transform] and [TransformJSON] replace the file: they write a temporary file
// beside it and rename that over it. Whoever reads the file, with or without a lock, and whatever
// comes in between, be it kill -9 or a full disk, finds the old contents or the new ones, whole.
// Mode, owner and group stay as they were. A file that did not exist appears with its contents,
// except that [Transform] makes an empty one first, to have something to lock.
//
// On return the contents are on the disk (fsync(2)), unless the context comes from [WithoutSync]. For a directory that may be
// written to but not read, all of its file system is synced, on Linux; elsewhere the new name may be lost with the power.
// If that alone fails, in the end, for the directory, or if the new file cannot be closed then, the error is returned
// although the new contents are in place.
//
// A FUSE file system may not be up to it: on bindfs, where a new name of a file is a new file, changes were lost.
//
// Where a file cannot be replaced, it is overwritten instead. That is on systems other than Unix,
// and on Unix where the directory is not writable, where the caller may not give the new file
// the owner, the mode or the access control list of the old one, where the file is a mount point, and where its
// name is too long for that of the temporary file. If an overwrite fails,
// then the old contents are written back, but a crash in the middle of one can leave a mix of
// both. Likewise, where the file system has no hard links, a new file is empty at first, and not locked for a moment;
// if it then cannot be locked, it is removed, unless somebody else has it.
//
// # What replacing means to others
//
//   - Everybody who uses this package looks, once the lock is granted, whether the file is still
//     at its path, and moves on to the new one if not. No change is lost among them. A program
//     that locks the file without looking, writes into a file that is gone if it waited while
//     another replaced it. Where such programs write, change the file with [OpenFile] or [Append],
//     which leave it in its place.
//   - A symbolic link is followed, and what it leads to is replaced, or created. So whoever may change the link
//     decides which file that is, among those that the caller may change. Linux does not follow the links of others in
//     sticky directories (fs.protected_symlinks, proc(5)), and no file is created through one here, on any Unix
//     system. If the link leads elsewhere by the time the file is locked, nothing is changed and no new file is left
//     where it led.
//   - Other hard links keep the old contents. Extended attributes are not carried over, and with them
//     capabilities (capabilities(7)) and the SELinux label: that is the one of a new file in the directory. Access
//     control lists are, but only on Linux.
//   - The temporary file of "name" is ".name.lockedfile-" and the number of the inode, with a hash for
//     a very long name. What a crash leaves of it, the next change of the file removes; so nothing
//     else may have this name. A crash while the file is being created can leave one with
//     a random string instead, which stays; and in a directory to which one can only append, all stay.
//   - Which file it is, is settled when the call begins: the working directory and the symbolic
//     links to directories can change afterwards, unless their names lead elsewhere to begin with (/proc/PID/root). If
//     somebody removes or replaces the file while it is locked, without locking it, the change fails and changes
//     nothing; unless that happens in the instant of the replacement.
//
// # Errors
//
// If the context ends before the lock is granted, and also if it has ended already, the error is
// ctx.Err(), and nothing is changed. Only the wait for the lock ends with the context: where a file system does not
// answer, other calls wait for it, and so can [TryWrite]. What is not a regular file is refused, and not opened.
// These and other errors of the file are an [*fs.PathError]; they match [errors.ErrUnsupported] if
// the file cannot be locked.
package lockedfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
)

// WithoutSync returns a context with which the functions of this package do not wait until the
// disk has what they write. They are faster by that, and as safe from a crash of the process, and from errors that a
// network file system tells only when a file is closed: these come before the file is replaced. After
// a crash of the system or a power failure, the contents may be old, new, or, as the file system likes it,
// empty or a mix.
func WithoutSync(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutSync{}, true)
}

type withoutSync struct{}

// Read returns the contents of the named file. It waits until nobody changes it; readers do not
// wait for each other.
func Read(ctx context.Context, name string) ([]byte, error) {
	r := newRequest(ctx, "read", name, 0)
	r.lock = func(f *os.File) error { return interlock.RLock(ctx, f) }
	f, err := r.open(os.O_RDONLY, nil)
	if err != nil {
		return nil, err
	}
	defer opened.Release(f.File)
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

// Write replaces the contents of the named file with data, or creates it with perm, before umask.
func Write(ctx context.Context, name string, data []byte, perm fs.FileMode) error {
	return newRequest(ctx, "write", name, perm).write(data)
}

// TryWrite is [Write] if that need not wait for a lock. If it would, the error matches
// [interlock.ErrLocked]: somebody else reads or changes the file.
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

// Append adds data to the end of the named file, or creates it with perm, before umask. It does
// so in place. If it fails, the file has its old size again. If it crashes, a part of data may be
// there.
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
		if _, err = f.Seek(0, io.SeekEnd); err != nil {
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

// Transform replaces the contents of the named file with what f makes of them. Nobody else who locks
// the file changes or reads it meanwhile. If there is no file, f gets nothing, and perm, before
// umask, is for the new file.
//
// Transform calls f once, after the lock is granted. If f fails or panics, or if ctx ends before f
// returns, nothing is changed, and a file that Transform has created is removed again (in Windows it
// stays, empty); the error is the one of f, or ctx.Err(). If f returns what it got, nothing is written. f may change its argument,
// and must not use the file otherwise: it would wait for itself.
//
// While f runs for a file that did not exist, there is an empty one, which who does not lock can read, and which a
// crash leaves.
func Transform(ctx context.Context, name string, perm fs.FileMode, f func(old []byte) ([]byte, error)) error {
	return newRequest(ctx, "transform", name, perm).transform(f)
}

// TransformJSON is [Transform] for a file that holds one JSON value: f changes the value that v points to.
// It is the zero value if the file is empty or does not exist. The file is written with
// [json.MarshalIndent], by one tab, and a newline at its end; fields that T does not have are lost.
//
// Contents that are not JSON, not a T, or more than one value are an [*fs.PathError] that wraps the error of
// [json.Unmarshal], and tells the byte where, unless it is in what a type decodes by itself: then that is not
// known. To find out, it is decoded twice. Nothing is changed then.
func TransformJSON[T any](ctx context.Context, name string, perm fs.FileMode, f func(v *T) error) error {
	return Transform(ctx, name, perm, func(old []byte) ([]byte, error) {
		var v T
		if len(old) > 0 {
			if err := json.Unmarshal(old, &v); err != nil {
				// An offset is one of the whole only if it moves with it: a decoder that T calls for
				// a part begins to count there.
				moved := json.Unmarshal(append([]byte(" "), old...), new(T))
				if offset := offsetOf(err); offset > 0 && offsetOf(moved) == offset+1 {
					err = fmt.Errorf("byte %d: %w", offset, err)
				}
				return nil, pathError("decode", name, err)
			}
		}
		if err := f(&v); err != nil {
			return nil, err
		}
		data, err := json.MarshalIndent(&v, "", "\t")
		if err != nil {
			return nil, pathError("encode", name, err)
		}
		return append(data, '\n'), nil
	})
}

// offsetOf is the offset that an error of json.Unmarshal tells, or 0.
func offsetOf(err error) int64 {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return syntax.Offset
	case errors.As(err, &mismatch):
		return mismatch.Offset
	}
	return 0
}

// A File is an open and locked file.
type File struct {
	*os.File
	sync bool // before it is unlocked
}

// OpenFile is [os.OpenFile], and locks the file: shared if flag is [os.O_RDONLY], otherwise
// exclusive. What is written to it is written in place, as with any open file. With [os.O_TRUNC] the
// file is truncated after the lock is granted.
func OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (*File, error) {
	r := newRequest(ctx, "open", name, perm)
	flag = lockable(flag)
	writable := flag&(os.O_WRONLY|os.O_RDWR) != 0
	if !writable {
		r.lock, r.shared = func(f *os.File) error { return interlock.RLock(ctx, f) }, true
		if flag&os.O_TRUNC != 0 {
			return nil, pathError("open", name, fs.ErrInvalid)
		}
	}
	var create func(string) (*file, error)
	if flag&os.O_CREATE != 0 {
		create = func(path string) (*file, error) {
			f, err := r.create(path, flag&^os.O_TRUNC, nil)
			if err != nil {
				return nil, err
			}
			f.File = named(f.File, path)
			return f, nil
		}
	}
	f, err := r.open(flag&^(os.O_CREATE|os.O_TRUNC), create)
	if err != nil {
		return nil, err
	}
	if f.created && r.sync {
		err = syncDir(f.File, f.path)
	}
	if err == nil && flag&os.O_TRUNC != 0 {
		err = f.Truncate(0)
	}
	if err != nil {
		f.uncreate()
		opened.Release(f.File)
		return nil, pathError("open", name, err)
	}
	return &File{f.File, writable && r.sync}, nil
}

// Close unlocks the file and closes it. Before that, if it was opened for writing, it waits until
// the disk has what was written, unless [OpenFile] got a context of [WithoutSync]. Of a
// File that is closed already the error matches [fs.ErrClosed].
func (f *File) Close() error {
	var err error
	if f.sync {
		err = f.Sync()
	}
	if closeErr := opened.Release(f.File); err == nil {
		err = closeErr
	}
	return err
}
