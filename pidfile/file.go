package pidfile

import (
	"errors"
	"io/fs"
	"os"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/paths"
)

// openOrCreate opens the regular file at path. If there is none, it creates
// one.
func openOrCreate(path string) (f *os.File, created bool, err error) {
	// Without O_CREATE first: in a sticky directory Linux refuses O_CREAT
	// even for an existing file of another user (fs.protected_regular,
	// proc(5)).
	f, err = atpath.OpenRegular(path, os.O_RDWR|noFollow, os.Lstat)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, false, err
	}
	if err := paths.OfFile(path); err != nil {
		return nil, false, pathError("open", path, err)
	}
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|noFollow, 0o644)
	if errors.Is(err, fs.ErrExist) {
		err = atpath.ErrAgain // Another process created it first.
	}
	return f, err == nil, err
}

// release unlocks and closes f.
func release(f *os.File) error { return atpath.Release(f, interlock.Unlock) }
