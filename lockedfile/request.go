package lockedfile

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/paths"
)

// A request is one call of a function of the package: which file to lock, and
// how.
type request struct {
	ctx    context.Context
	op     string               // for errors
	name   string               // for errors: the path that the caller gave
	path   string               // of the file; see [atpath.Resolve]
	perm   fs.FileMode          // of a file that the call creates
	lock   func(*os.File) error // locks the open file
	shared bool                 // lock acquires a shared lock
	sync   bool                 // wait until the disk has what the call writes
}

// newRequest returns a request with an exclusive lock.
func newRequest(ctx context.Context, op, name string, perm fs.FileMode) *request {
	return &request{
		ctx:  ctx,
		op:   op,
		name: name,
		path: atpath.Resolve(name),
		perm: perm,
		lock: func(f *os.File) error { return interlock.Lock(ctx, f) },
		sync: ctx.Value(withoutSync{}) == nil,
	}
}

// newReadRequest returns a request with a shared lock.
func newReadRequest(ctx context.Context, op, name string, perm fs.FileMode) *request {
	r := newRequest(ctx, op, name, perm)
	r.lock = func(f *os.File) error { return interlock.RLock(ctx, f) }
	r.shared = true
	return r
}

// open opens the file and locks it. If there is none, open calls create, unless
// create is nil.
func (r *request) open(flag int, create func(path string) (*file, error)) (*file, error) {
	f, err := atpath.Lock(r.ctx, atpath.Steps[*file]{
		Open: func() (*file, error) {
			f, err := r.openOnce(flag, create)
			if errors.Is(err, fs.ErrExist) && flag&os.O_EXCL == 0 {
				err = atpath.ErrAgain // Another process created it first.
			}
			return f, r.pathError(err)
		},
		Lock: func(f *file) error {
			if f.locked {
				return nil
			}
			return r.lock(f.File)
		},
		Current: func(f *file) (bool, error) { return atpath.IsAt(f.File, r.path, os.Stat) },
		Discard: (*file).discard,
	})
	if err != nil {
		if f != nil {
			f.discard()
		}
		if errors.Is(err, atpath.ErrUnstable) || errors.As(err, new(*fs.PathError)) {
			err = r.pathError(err)
		}
		return nil, err // The error of the context comes as it is.
	}
	f.locked = true
	if !f.created {
		if f.path, err = follow(r.path); err != nil {
			release(f.File)
			return nil, r.pathError(err)
		}
	}
	return f, nil
}

// openOnce opens the file or creates it. The error matches [atpath.ErrAgain] if
// the path changed in the meantime.
func (r *request) openOnce(flag int, create func(path string) (*file, error)) (*file, error) {
	if r.path == "" {
		return nil, fs.ErrNotExist
	}
	if create != nil && flag&os.O_EXCL != 0 {
		return r.createOnly(create)
	}
	// Open the path itself, not where follow leads: the kernel does not
	// follow some links (fs.protected_symlinks), and some lead to files
	// that have no name (/proc/self/fd). And do so without O_CREATE: in a
	// sticky directory Linux refuses O_CREAT even for an existing file of
	// another user (fs.protected_regular). For both, see proc(5).
	f, err := atpath.OpenRegular(r.path, flag, os.Stat)
	if err == nil {
		return &file{File: f, shared: r.shared}, nil
	}
	if create == nil || !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := paths.OfFile(r.path); err != nil {
		return nil, err
	}
	path, err := followToCreate(r.path)
	if err != nil {
		return nil, err
	}
	if err := paths.OfFile(path); err != nil {
		return nil, err
	}
	return create(path)
}

// createOnly creates the file. If there is one, the error matches fs.ErrExist.
func (r *request) createOnly(create func(path string) (*file, error)) (*file, error) {
	if err := paths.OfFile(r.path); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(r.path); err == nil {
		return nil, fs.ErrExist
	}
	return create(r.path)
}

// change locks the file and calls update. If there is no file, change creates
// one that contains data. If update fails, change removes a file that it
// created.
func (r *request) change(flag int, data []byte, update func(*file) error) (err error) {
	f, err := r.open(flag, func(path string) (*file, error) { return r.create(path, flag, data) })
	if err != nil {
		return err
	}
	done := false
	defer func() { // also if update panics
		if !done {
			f.uncreate()
		}
		if releaseErr := release(f.File); err == nil {
			err = r.pathError(releaseErr)
		}
	}()
	if err := update(f); err != nil {
		if caller, ok := err.(callerError); ok {
			return caller.error
		}
		return r.pathError(err)
	}
	done = true
	if f.created && !f.complete && r.sync {
		return r.pathError(syncDir(f.File, f.path))
	}
	return nil
}

// A callerError is an error of the caller's function or context, to be returned
// as it is.
type callerError struct{ error }

func (r *request) pathError(err error) error { return pathError(r.op, r.name, err) }

// pathError returns err, which may name a temporary file, as an error of op on
// the file at name.
func pathError(op, name string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *fs.PathError:
		err = e.Err
	case *os.LinkError:
		err = e.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}
