package lockedfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
)

// A request is a call of one of the package's functions: what to lock, and how.
type request struct {
	ctx  context.Context
	op   string // for errors
	name string // for errors
	path string // absolute, with the links to directories resolved: those can change meanwhile
	perm fs.FileMode
	lock func(*os.File) error
	sync bool
}

// newRequest makes a request for an exclusive lock.
func newRequest(ctx context.Context, op, name string, perm fs.FileMode) *request {
	return &request{
		ctx:  ctx,
		op:   op,
		name: name,
		path: pin(name),
		perm: perm,
		lock: func(f *os.File) error { return interlock.Lock(ctx, f) },
		sync: ctx.Value(withoutSync{}) == nil,
	}
}

// pin makes a path independent of the working directory, and of what symbolic links to directories lead to
// later. What cannot be resolved stays, and will be found to be missing.
func pin(name string) string {
	if name == "" {
		return name
	}
	// Not cleaned: where dir is a symbolic link, dir/../x is not x.
	if !filepath.IsAbs(name) {
		wd, err := os.Getwd()
		if err != nil {
			return name
		}
		name = wd + string(filepath.Separator) + name
	}
	dir, base := filepath.Split(name)
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved + string(filepath.Separator)
	}
	return dir + base
}

// A file is an open data file.
type file struct {
	*os.File
	path     string // of the file itself, where the request's path may be a symbolic link
	created  bool   // by us
	complete bool   // created with its contents, and locked
}

// maxRounds is more often than a file that others replace can be missed. It is there for file systems
// on which a file never is the one at its path.
const maxRounds = 100_000

var errStale = errors.New("the file is removed or replaced again and again")

// open opens the file and locks it. If there is none, it calls create, unless that is nil.
func (r *request) open(flag int, create func(path string) (*file, error)) (*file, error) {
	for range maxRounds {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		f, err := r.openOnce(flag, create)
		if err != nil {
			if errors.Is(err, fs.ErrExist) && flag&os.O_EXCL == 0 {
				continue // somebody else was quicker to create it
			}
			return nil, pathError(r.op, r.name, err)
		}
		if !f.complete {
			err = r.lock(f.File)
		}
		// Whoever waited for a file that its holder replaced has got the lock of a file that is
		// gone. And who holds a file that is gone does not hold up a TryWrite.
		current, statErr := opened.IsAt(f.File, r.path, os.Stat)
		if err == nil && current {
			return f, nil
		}
		if f.complete && statErr != nil {
			f.uncreate()
		}
		if current || statErr != nil || err != nil && !errors.Is(err, interlock.ErrLocked) {
			opened.Release(f.File)
			if err == nil {
				err = pathError(r.op, r.name, statErr)
			}
			return nil, err
		}
		opened.Release(f.File)
	}
	return nil, pathError(r.op, r.name, errStale)
}

func (r *request) openOnce(flag int, create func(path string) (*file, error)) (*file, error) {
	// Look before opening: to open a FIFO waits for its other end.
	info, err := os.Stat(r.path)
	if err == nil {
		err = regular(info)
	}
	if err != nil && (r.path == "" || create == nil || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	path := follow(r.path)
	if create != nil && flag&os.O_EXCL != 0 {
		if _, err := os.Lstat(r.path); err == nil {
			return nil, fs.ErrExist
		}
		return create(path)
	}
	// Without O_CREATE first: in a sticky directory Linux refuses O_CREAT on a file of somebody
	// else's, even to open it (fs.protected_regular, proc(5)).
	f, err := os.OpenFile(path, flag|openFlags, 0)
	if create != nil && errors.Is(err, fs.ErrNotExist) {
		return create(path)
	}
	if err != nil {
		return nil, err
	}
	info, err = f.Stat()
	if err == nil {
		err = regular(info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &file{File: f, path: path}, nil
}

// follow returns where the symbolic link at name leads to, whether or not anything is there, and
// name if there is none.
func follow(name string) string {
	for range 255 {
		target, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			// Not cleaned: where dir is a symbolic link, dir/../x is not x.
			dir, _ := filepath.Split(name)
			target = dir + target
		}
		name = target
	}
	return name
}

// regular refuses what is not a regular file.
func regular(info fs.FileInfo) error {
	what := "a device"
	switch info.Mode().Type() {
	case 0:
		return nil
	case fs.ModeDir:
		what = "a directory"
	case fs.ModeNamedPipe:
		what = "a FIFO"
	case fs.ModeSocket:
		what = "a socket"
	}
	return errors.New("not a regular file but " + what)
}

// uncreate removes f, which the package has created and whose lock it has.
func (f *file) uncreate() {
	if current, _ := opened.IsAt(f.File, f.path, os.Stat); current {
		os.Remove(f.path)
	}
}

// pathError makes err, which may name a temporary file, an error of op on the file at name.
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
