package lockedfile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/interlock-go/interlock"
)

// put makes data the contents of f, which is locked: in a new file if possible,
// otherwise in place.
func (r *request) put(f *file, data []byte) error {
	next, err := r.replace(f, data)
	if err == errInPlace {
		return r.overwrite(f, data)
	}
	if err != nil {
		return err
	}
	// Release the old file before syncDir, which takes long. Its waiters
	// move on and queue up for the new file, which is locked as well.
	release(f.File)
	f.File, f.created = next, false
	if r.sync {
		return syncDir(f.File, f.path)
	}
	return nil
}

// replace puts a new file in the place of f and returns it, locked. The error
// is errInPlace if that is not possible, but f might be overwritten.
func (r *request) replace(f *file, data []byte) (_ *os.File, err error) {
	if !canReplace {
		return nil, errInPlace
	}
	old, err := f.Stat()
	if err != nil {
		return nil, err
	}
	next, tmp, err := createTemp(f.path, old)
	if err != nil {
		return nil, orInPlace(err)
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
			release(next)
		}
	}()
	// Lock the new file before other processes can see it. They must not
	// act on contents that a power failure may take back until syncDir
	// returns.
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

// createTemp creates a temporary file that is to replace the old file at path.
func createTemp(path string, old fs.FileInfo) (f *os.File, tmp string, err error) {
	const flag = os.O_RDWR | os.O_CREATE | os.O_EXCL
	// Only the holder of the lock of the old file uses this name. A file
	// there is left from a crash, or another user put it in the way.
	tmp = beside(path, inode(old))
	os.Remove(tmp)
	f, err = os.OpenFile(tmp, flag, 0o600)
	if errors.Is(err, fs.ErrExist) {
		tmp = beside(path, randomSuffix())
		f, err = os.OpenFile(tmp, flag, 0o600)
	}
	return f, tmp, err
}

// beside returns the path of a temporary file for the file at path, in the same
// directory.
func beside(path, suffix string) string {
	const longest = 200 // of the 255 bytes that a name may have
	dir, base := filepath.Split(path)
	if len(base) > longest {
		base = fmt.Sprintf("%x", sha256.Sum256([]byte(base)))
	}
	return dir + "." + base + ".lockedfile-" + suffix
}

// randomSuffix returns a suffix that no other process uses and that is no inode
// number.
func randomSuffix() string { return "r" + strconv.FormatUint(rand.Uint64(), 36) }

// errInPlace means that the file cannot be replaced, but might be changed in
// place.
var errInPlace = errors.New("cannot be replaced")

// orInPlace returns errInPlace if err, from creating a new file or moving it to
// its place, is no reason against a change in place. Otherwise it returns err.
func orInPlace(err error) error {
	if isInPlace(err) {
		return errInPlace
	}
	return err
}
