package lockedfile

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
)

// change locks the file, after creating it with data if there is none, and calls update. If that
// fails, a file that change has created and that is still empty is removed again.
func (r *request) change(flag int, data []byte, update func(*file) error) error {
	f, err := r.open(flag, func(path string) (*file, error) { return r.create(path, flag, data) })
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if f.created && !done {
			f.uncreate()
		}
		opened.Release(f.File)
	}()
	if err := update(f); err != nil {
		if foreign, ok := err.(foreignError); ok {
			return foreign.error
		}
		return pathError(r.op, r.name, err)
	}
	done = true
	if f.created && !f.complete && r.sync {
		return pathError(r.op, r.name, syncDir(f.path))
	}
	return nil
}

// A foreignError is not ours to wrap.
type foreignError struct{ error }

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
			return foreignError{err}
		}
		if bytes.Equal(old, data) {
			return nil
		}
		return r.put(file, data)
	})
}

// put replaces the contents of f, which is locked, or overwrites them if it must.
func (r *request) put(f *file, data []byte) error {
	next, err := r.replace(f, data)
	if err != nil {
		if irreplaceable(err) {
			return r.overwrite(f, data)
		}
		return err
	}
	defer opened.Release(next)
	// Those who wait for the old file move on to the new one, to be there when we give it up.
	opened.Release(f.File)
	if r.sync {
		return syncDir(f.path)
	}
	return nil
}

// replace puts a new file in place of f and returns it, locked.
func (r *request) replace(f *file, data []byte) (_ *os.File, err error) {
	if !canReplace {
		return nil, errInPlace
	}
	old, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Only who holds the lock of this file uses this name, so what is there is a leftover; or it
	// was put there to be in the way.
	tmp := beside(f.path, inode(old))
	os.Remove(tmp)
	next, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		tmp = beside(f.path, random())
		next, err = os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
			opened.Release(next)
		}
	}()
	// Locked before anybody can see it, so that nobody acts on contents that a power failure
	// may still take back.
	if err := interlock.TryLock(next); err != nil {
		return nil, err
	}
	if _, err := next.Write(data); err != nil {
		return nil, err
	}
	// After the write, which would clear the set-user-ID bit.
	if err := inherit(next, f.File, old); err != nil {
		return nil, err
	}
	if r.sync {
		if err := next.Sync(); err != nil {
			return nil, err
		}
	}
	// If the file was taken away from under the lock, another one is locked and changed by others now.
	if current, err := opened.IsAt(f.File, f.path, os.Stat); err != nil || !current {
		return nil, cmp.Or(err, errReplaced)
	}
	return next, os.Rename(tmp, f.path)
}

var errReplaced = errors.New("somebody else has removed or replaced the file")

// overwrite writes data into f. If it fails, it writes the old contents back.
func (r *request) overwrite(f *file, data []byte) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	old := make([]byte, info.Size())
	if _, err := f.ReadAt(old, 0); err != nil && len(old) > 0 {
		return err
	}
	err = func() error {
		// What makes the file longer comes first: if the disk is full, it is known before any old
		// byte is lost. What makes it shorter comes last: until then nobody else can use
		// the space that a way back may need.
		if len(data) > len(old) {
			if _, err := f.WriteAt(data[len(old):], int64(len(old))); err != nil {
				return err
			}
		}
		if _, err := f.WriteAt(data[:min(len(data), len(old))], 0); err != nil {
			return err
		}
		if len(data) < len(old) {
			if err := f.Truncate(int64(len(data))); err != nil {
				return err
			}
		}
		if r.sync {
			return f.Sync()
		}
		return nil
	}()
	if err == nil {
		return nil
	}
	undoErr := f.Truncate(info.Size())
	if _, err := f.WriteAt(old, 0); undoErr == nil {
		undoErr = err
	}
	if undoErr == nil && r.sync {
		undoErr = f.Sync()
	}
	return undone(err, undoErr)
}

// undone is the error of a change that was undone, or that could not be.
func undone(err, undoErr error) error {
	if undoErr == nil {
		return err
	}
	return fmt.Errorf("%w; the old contents could not be restored: %w", err, undoErr)
}

// create makes a file at path that holds data and is locked from the moment that it can be seen. On a
// file system without hard links it makes an empty one that is not locked. If there is a file
// already, the error matches fs.ErrExist.
func (r *request) create(path string, flag int, data []byte) (*file, error) {
	f, err := r.link(path, flag, data)
	switch {
	case err == nil && r.sync:
		if err := syncDir(path); err != nil {
			os.Remove(path) // it is locked, and so ours
			opened.Release(f)
			return nil, err
		}
	case err != nil && irreplaceable(err) && !errors.Is(err, fs.ErrExist):
		return createEmpty(path, flag, r.perm)
	case err != nil:
		return nil, err
	}
	return &file{File: f, path: path, created: true, complete: true}, nil
}

// link makes a file elsewhere, locks it, writes data to it, and then makes path its name.
func (r *request) link(path string, flag int, data []byte) (_ *os.File, err error) {
	if !canReplace {
		return nil, errInPlace
	}
	tmp := beside(path, random())
	f, err := os.OpenFile(tmp, flag|os.O_CREATE|os.O_EXCL, r.perm)
	if err != nil {
		return nil, err
	}
	defer func() {
		os.Remove(tmp)
		if err != nil {
			opened.Release(f)
		}
	}()
	if err := interlock.TryLock(f); err != nil {
		return nil, err
	}
	if len(data) > 0 {
		if _, err := f.Write(data); err != nil {
			return nil, err
		}
	}
	if r.sync {
		if err := f.Sync(); err != nil {
			return nil, err
		}
	}
	return f, os.Link(tmp, path)
}

func createEmpty(path string, flag int, perm fs.FileMode) (*file, error) {
	f, err := os.OpenFile(path, flag|openFlags|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, err
	}
	return &file{File: f, path: path, created: true}, nil
}

// beside is the path of a temporary file for the file at path, in the same directory.
func beside(path, suffix string) string {
	dir, base := filepath.Split(path)
	if len(base) > 200 { // of the 255 that a name may have
		base = fmt.Sprintf("%x", sha256.Sum256([]byte(base)))
	}
	return dir + "." + base + ".lockedfile-" + suffix
}

// random is a suffix that nobody else uses, and that is no inode.
func random() string { return "r" + strconv.FormatUint(rand.Uint64(), 36) }

// errInPlace: the file must not be replaced.
var errInPlace = errors.New("cannot be replaced")
