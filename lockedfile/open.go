package lockedfile

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
	"github.com/interlock-go/interlock/internal/paths"
)

// A request is a call of one of the package's functions: what to lock, and how.
type request struct {
	ctx    context.Context
	op     string // for errors
	name   string // for errors
	path   string // absolute, with the links to directories resolved: those can change meanwhile
	perm   fs.FileMode
	lock   func(*os.File) error
	sync   bool
	shared bool // lock locks for reading only
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
// later. What cannot be resolved stays as it is, such as what leads to another mount namespace (/proc/PID/root).
func pin(name string) string {
	if name == "" {
		return name
	}
	abs, err := opened.Absolute(name)
	if err != nil {
		return name
	}
	dir, base := filepath.Split(abs)
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		if same, _ := paths.Same(dir, resolved); same {
			dir = resolved + string(filepath.Separator)
		}
	}
	return dir + base
}

// A file is an open data file.
type file struct {
	*os.File
	path     string // of the file itself, where the request's path may be a symbolic link
	created  bool   // by us, and by nobody else written to
	complete bool   // created with its contents
	size     int64  // with which it was created
	locked   bool
	shared   bool // if it is locked, that is for reading only
}

// open opens the file and locks it. If there is none, it calls create, unless that is nil.
func (r *request) open(flag int, create func(path string) (*file, error)) (*file, error) {
	for range opened.Rounds {
		if err := r.ctx.Err(); err != nil {
			return nil, err
		}
		f, err := r.openOnce(flag, create)
		if err == errAgain || errors.Is(err, fs.ErrExist) && flag&os.O_EXCL == 0 {
			continue // somebody else was quicker to remove or to create it
		}
		if err != nil {
			return nil, pathError(r.op, r.name, err)
		}
		if !f.locked {
			err = r.lock(f.File)
		}
		// Whoever waited for a file that its holder replaced has got the lock of a file that is
		// gone. And who holds a file that is gone does not hold up a TryWrite.
		var current bool
		var statErr error
		if !opened.Forgotten(err) {
			current, statErr = opened.IsAt(f.File, r.path, os.Stat)
		}
		if err == nil && current {
			if f.created && !f.locked {
				f.created = f.untouched() // or somebody else has had the lock, and has written to it
			}
			f.locked = true
			if !f.created {
				if f.path, err = follow(r.path, false); err != nil {
					opened.Release(f.File)
					return nil, pathError(r.op, r.name, err)
				}
			}
			return f, nil
		}
		f.uncreate()
		opened.Release(f.File)
		switch {
		case err != nil && r.ctx.Err() != nil && !errors.As(err, new(*fs.PathError)): // ctx.Err(), which it may not be possible to compare
			return nil, err
		case statErr != nil:
			return nil, pathError(r.op, r.name, cmp.Or(err, statErr))
		case current, err != nil && !errors.Is(err, interlock.ErrLocked) && !opened.Forgotten(err):
			return nil, pathError(r.op, r.name, err)
		}
	}
	return nil, pathError(r.op, r.name, opened.ErrStale)
}

// errAgain: what is at the path has changed meanwhile.
var errAgain = errors.New("open it again")

func (r *request) openOnce(flag int, create func(path string) (*file, error)) (*file, error) {
	// Look before opening: to open a FIFO waits for its other end.
	info, err := os.Stat(r.path)
	if err == nil {
		err = regular(info)
	}
	if err == nil || create != nil && errors.Is(err, fs.ErrNotExist) {
		err = cmp.Or(paths.OfFile(r.path), err)
	}
	if err != nil && (r.path == "" || create == nil || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	if create != nil && flag&os.O_EXCL != 0 {
		if _, err := os.Lstat(r.path); err == nil {
			return nil, fs.ErrExist
		}
		return create(r.path)
	}
	if err != nil {
		// The kernel has followed what was there a moment ago, or not.
		path, err := follow(r.path, true)
		if err = cmp.Or(err, paths.OfFile(path)); err != nil {
			return nil, err
		}
		return create(path)
	}
	// Without O_CREATE: in a sticky directory Linux refuses O_CREAT on a file of somebody
	// else's, even to open it (fs.protected_regular, proc(5)). And by the path itself, not by where it leads to:
	// some links Linux does not follow (fs.protected_symlinks), and some lead to what has no name (/proc/self/fd).
	f, err := os.OpenFile(r.path, flag|openFlags, 0)
	if err != nil {
		if opened.Forgotten(err) && (create != nil || !errors.Is(err, fs.ErrNotExist)) {
			err = errAgain
		}
		return nil, err
	}
	info, err = f.Stat()
	if err == nil {
		err = regular(info)
	}
	if err != nil {
		f.Close()
		if opened.Forgotten(err) {
			err = errAgain
		}
		return nil, err
	}
	return &file{File: f, shared: r.shared}, nil
}

// follow returns where the symbolic link at name leads to, whether or not anything is there, and
// name if there is none. If create is set, it goes only by those by which a file may be created.
func follow(name string, create bool) (string, error) {
	for range 255 {
		var before fs.FileInfo
		if create {
			before, _ = os.Lstat(name)
		}
		target, err := os.Readlink(name)
		if err != nil {
			// Usually it is not a link. But of a link that cannot be read it must not be thought that it is the file.
			info, statErr := os.Lstat(name)
			switch {
			case statErr == nil && info.Mode()&fs.ModeSymlink != 0:
				return name, err
			case errors.Is(statErr, fs.ErrNotExist):
				return name, nil
			}
			return name, statErr
		}
		if create {
			if err := mayFollow(name, before); err != nil {
				return name, err
			}
		}
		if !filepath.IsAbs(target) {
			// Not cleaned: where dir is a symbolic link, dir/../x is not x.
			dir, _ := filepath.Split(name)
			target = dir + target
		}
		name = target
	}
	return name, nil
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

// uncreate removes f if the package has created it, and if nobody else has locked it or written to it since.
func (f *file) uncreate() {
	if !f.created || (!f.locked || f.shared) && interlock.TryLock(f.File) != nil || !f.untouched() {
		return
	}
	if current, _ := opened.IsAt(f.File, f.path, os.Lstat); current {
		os.Remove(f.path)
	}
}

// untouched reports whether f, which was created, has its size still.
func (f *file) untouched() bool {
	info, err := f.Stat()
	return err == nil && info.Size() == f.size
}

// check returns an error unless f is still the file at its path. If it is not, then another one is locked
// and changed by others.
func (f *file) check() error {
	current, err := opened.IsAt(f.File, f.path, os.Stat)
	if err == nil && !current {
		err = errReplaced
	}
	return err
}

var errReplaced = errors.New("somebody else has removed or replaced the file")

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
