// Package opened is for open files that are locked by what they are, and found by where they are.
package opened

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/paths"
)

// IsAt reports whether f is the file at path, by [os.Stat] or [os.Lstat].
func IsAt(f *os.File, path string, stat func(path string) (fs.FileInfo, error)) (bool, error) {
	info, err := f.Stat()
	if Forgotten(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	at, err := stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(info, at), err
}

// Forgotten reports whether err, of a call on an open file, says that a remote file system does not know the file
// any more, since its name was removed.
func Forgotten(err error) bool { return errors.Is(err, fs.ErrNotExist) || stale(err) }

// Release unlocks f and closes it. To close it alone would not do while a child process between
// fork and exec has a copy of the descriptor.
func Release(f *os.File) error {
	err := interlock.Unlock(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// ErrStale is what comes after [Rounds].
var ErrStale = errors.New("the file is removed or replaced again and again")

// Rounds yields once for each time that a file is opened anew, because it was replaced meanwhile. That is
// far more often than others can do that by chance, and takes some ten seconds. It is there for file
// systems on which a file never is the one at its path.
func Rounds(yield func() bool) {
	for round := range 10_000 {
		if round > 100 {
			time.Sleep(rand.N(2 * time.Millisecond))
		}
		if !yield() {
			return
		}
	}
}

// Absolute makes path independent of the working directory.
func Absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	if runtime.GOOS == "windows" { // where C:x and \x are neither absolute nor relative to the working directory
		dir, base := filepath.Split(path)
		dir, err := filepath.Abs(dir)
		return strings.TrimSuffix(dir, `\`) + `\` + base, err
	}
	// Not cleaned: where dir is a symbolic link, dir/../x is not x.
	wd, err := paths.Getwd()
	return wd + string(filepath.Separator) + path, err
}
