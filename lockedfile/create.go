package lockedfile

import (
	"os"

	"github.com/interlock-go/interlock"
)

// create creates a file at path that contains data. The file is locked before
// other processes can see it. On a file system without hard links, create
// creates an empty file that is not locked. If there is a file, the error
// matches fs.ErrExist.
func (r *request) create(path string, flag int, data []byte) (*file, error) {
	f, err := r.link(path, flag, data)
	if err == errInPlace {
		return r.createEmpty(path, flag)
	}
	if err != nil {
		return nil, err
	}
	created := &file{
		File:     f,
		path:     path,
		created:  true,
		complete: true,
		size:     int64(len(data)),
		locked:   true,
		shared:   r.shared,
	}
	if r.sync {
		if err := syncDir(f, path); err != nil {
			created.discard()
			return nil, err
		}
	}
	return created, nil
}

// link creates a temporary file, locks it, writes data to it, and then gives it
// the name path. The error is errInPlace if that is not possible, but a file
// might be created at path directly.
func (r *request) link(path string, flag int, data []byte) (_ *os.File, err error) {
	if !canReplace {
		return nil, errInPlace
	}
	tmp := beside(path, randomSuffix())
	f, err := os.OpenFile(tmp, flag|os.O_CREATE|os.O_EXCL, r.perm)
	if err != nil {
		return nil, orInPlace(err)
	}
	defer func() {
		os.Remove(tmp)
		if err != nil {
			release(f)
		}
	}()
	lock := interlock.TryLock
	if r.shared {
		lock = interlock.TryRLock // NFSv4 requires a writable file for an exclusive lock.
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

// createEmpty creates an empty file at path, which is not locked.
func (r *request) createEmpty(path string, flag int) (*file, error) {
	f, err := os.OpenFile(path, flag|os.O_CREATE|os.O_EXCL, r.perm)
	if err != nil {
		return nil, err
	}
	return &file{File: f, path: path, created: true, shared: r.shared}, nil
}
