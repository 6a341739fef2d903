package lockedfile

import (
	"bytes"
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
// fails, a file that change has created is removed again.
func (r *request) change(flag int, data []byte, update func(*file) error) (err error) {
	f, err := r.open(flag, func(path string) (*file, error) { return r.create(path, flag, data) })
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			f.uncreate()
		}
		if releaseErr := opened.Release(f.File); err == nil {
			err = pathError(r.op, r.name, releaseErr)
		}
	}()
	if err := update(f); err != nil {
		if foreign, ok := err.(foreignError); ok {
			return foreign.error
		}
		return pathError(r.op, r.name, err)
	}
	done = true
	if f.created && !f.complete && r.sync {
		return pathError(r.op, r.name, syncDir(f.File, f.path))
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
	if err == errInPlace {
		return r.overwrite(f, data)
	}
	if err != nil {
		return err
	}
	// Those who wait for the old file move on to the new one, to be there when we give it up.
	opened.Release(f.File)
	f.File, f.created = next, false
	if r.sync {
		return syncDir(f.File, f.path)
	}
	return nil
}

// replace puts a new file in place of f and returns it, locked. The error is errInPlace if that cannot be done, but
// f might be overwritten.
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
		return nil, orInPlace(err)
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
		return nil, orInPlace(err)
	}
	if err := r.flush(next); err != nil {
		return nil, err
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return next, orInPlace(os.Rename(tmp, f.path))
}

// flush waits until the disk has what was written to f. Without sync, it asks at least for what a network file
// system says of that only when a descriptor is closed, see close(2).
func (r *request) flush(f *os.File) error {
	if r.sync {
		return f.Sync()
	}
	return closeCopy(f)
}

// overwrite writes data into f. If it fails, it writes the old contents back.
func (r *request) overwrite(f *file, data []byte) error {
	if err := f.check(); err != nil {
		return err
	}
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
		return r.flush(f.File)
	}()
	if err == nil {
		return nil
	}
	undoErr := f.Truncate(info.Size())
	if _, err := f.WriteAt(old, 0); err != nil && undoErr == nil && !f.holds(old) {
		undoErr = err
	}
	if undoErr == nil && r.sync {
		undoErr = f.Sync()
	}
	return undone(err, undoErr)
}

// holds reports whether these are the contents of f. Where f has a hole, on a full disk, they cannot be written back,
// and need not.
func (f *file) holds(contents []byte) bool {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(contents))))
	return err == nil && bytes.Equal(data, contents)
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
	created := &file{File: f, path: path, created: true, complete: true, size: int64(len(data)), locked: true, shared: r.shared}
	switch {
	case err == nil && r.sync:
		if err := syncDir(f, path); err != nil {
			created.uncreate()
			opened.Release(f)
			return nil, err
		}
	case err == errInPlace:
		return r.createEmpty(path, flag)
	case err != nil:
		return nil, err
	}
	return created, nil
}

// link makes a file elsewhere, locks it, writes data to it, and then makes path its name. The error is errInPlace
// if that cannot be done, but a file might be made at path.
func (r *request) link(path string, flag int, data []byte) (_ *os.File, err error) {
	if !canReplace {
		return nil, errInPlace
	}
	tmp := beside(path, random())
	f, err := os.OpenFile(tmp, flag|os.O_CREATE|os.O_EXCL, r.perm)
	if err != nil {
		return nil, orInPlace(err)
	}
	defer func() {
		os.Remove(tmp)
		if err != nil {
			opened.Release(f)
		}
	}()
	lock := interlock.TryLock
	if r.shared { // on NFS v4, what is open for reading can be locked for reading only
		lock = interlock.TryRLock
	}
	if err := lock(f); err != nil {
		return nil, err
	}
	if len(data) > 0 {
		if _, err := f.Write(data); err != nil {
			return nil, err
		}
	}
	if err := r.flush(f); err != nil {
		return nil, err
	}
	return f, orInPlace(os.Link(tmp, path))
}

func (r *request) createEmpty(path string, flag int) (*file, error) {
	f, err := os.OpenFile(path, flag|openFlags|os.O_CREATE|os.O_EXCL, r.perm)
	if err != nil {
		return nil, err
	}
	return &file{File: f, path: path, created: true, shared: r.shared}, nil
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

// orInPlace is for an error of making a new file or of putting it in its place.
func orInPlace(err error) error {
	if irreplaceable(err) {
		return errInPlace
	}
	return err
}
