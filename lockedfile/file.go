package lockedfile

import (
	"errors"
	"os"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/atpath"
)

// A file is the open data file of a request.
type file struct {
	*os.File
	path     string // of the file itself; the path of the request may be a symbolic link
	created  bool   // by this request
	complete bool   // created with its contents
	size     int64  // after it was created
	locked   bool
	shared   bool // the lock, once acquired, is a shared one
}

var errReplaced = errors.New("another process removed or replaced the file while it was locked")

// check returns an error unless f is still the file at its path. If it is not,
// another process may have locked the new file, and change it at the same time.
func (f *file) check() error {
	current, err := atpath.IsAt(f.File, f.path, os.Stat)
	if err == nil && !current {
		err = errReplaced
	}
	return err
}

// uncreate removes f if this request created it and no other process has locked
// it or written to it since.
func (f *file) uncreate() {
	if !f.created {
		return
	}
	if exclusive := f.locked && !f.shared; !exclusive && interlock.TryLock(f.File) != nil {
		return
	}
	if !f.untouched() {
		return
	}
	if current, _ := atpath.IsAt(f.File, f.path, os.Lstat); current {
		os.Remove(f.path)
	}
}

// untouched reports whether f, which this request created, still has its size.
func (f *file) untouched() bool {
	info, err := f.Stat()
	return err == nil && info.Size() == f.size
}

// discard gives up f after a failure.
func (f *file) discard() {
	f.uncreate()
	release(f.File)
}

// release unlocks and closes f.
func release(f *os.File) error { return atpath.Release(f, interlock.Unlock) }
