package lockedfile

import (
	"context"
	"io/fs"
	"os"
)

// A File is an open and locked file. Close unlocks it.
type File struct {
	*os.File
	sync bool // Close waits for the disk
}

// OpenFile is like [os.OpenFile], and locks the file. The lock is shared if
// flag has neither [os.O_WRONLY] nor [os.O_RDWR]; otherwise it is exclusive.
//
// The caller's writes change the file in place, as with any open file. With
// [os.O_TRUNC], OpenFile truncates the file after acquiring the lock, which
// must be exclusive.
func OpenFile(ctx context.Context, name string, flag int, perm fs.FileMode) (*File, error) {
	flag = lockable(flag)
	writable := flag&(os.O_WRONLY|os.O_RDWR) != 0
	r := newRequest(ctx, "open", name, perm)
	if !writable {
		r = newReadRequest(ctx, "open", name, perm)
		if flag&os.O_TRUNC != 0 {
			return nil, r.pathError(fs.ErrInvalid)
		}
	}
	var create func(string) (*file, error)
	if flag&os.O_CREATE != 0 {
		create = func(path string) (*file, error) {
			f, err := r.create(path, flag&^os.O_TRUNC, nil)
			if err != nil {
				return nil, err
			}
			f.File = renamed(f.File, path)
			return f, nil
		}
	}
	f, err := r.open(flag&^(os.O_CREATE|os.O_TRUNC), create)
	if err != nil {
		return nil, err
	}
	if f.created && !f.complete && r.sync { // otherwise create did it
		err = syncDir(f.File, f.path)
	}
	if err == nil && flag&os.O_TRUNC != 0 {
		err = f.Truncate(0)
	}
	if err != nil {
		f.discard()
		return nil, r.pathError(err)
	}
	return &File{f.File, writable && r.sync}, nil
}

// Close unlocks the file and closes it. If the file was opened for writing,
// Close first waits until its contents are on the disk, unless the context of
// [OpenFile] came from [WithoutSync].
//
// If the file is already closed, the error matches [fs.ErrClosed].
func (f *File) Close() error {
	var err error
	if f.sync {
		err = f.Sync()
	}
	if releaseErr := release(f.File); err == nil {
		err = releaseErr
	}
	return err
}
