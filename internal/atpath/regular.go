package atpath

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/interlock-go/interlock/internal/paths"
)

// leasePatience is how long [OpenRegular] waits for a process that has a lease
// on the file.
const leasePatience = 500 * time.Millisecond

// OpenRegular opens the regular file at path. It never creates one. The
// argument stat, [os.Stat] or [os.Lstat], looks at the file before it is
// opened; with os.Lstat, flag must keep the kernel from following a symbolic
// link, too.
//
// The error is an [*fs.PathError], or [ErrAgain].
func OpenRegular(path string, flag int, stat func(path string) (fs.FileInfo, error)) (*os.File, error) {
	// Look first: to open a FIFO or a device can block or have effects.
	info, err := stat(path)
	switch {
	case err == nil:
		err = cmp.Or(CheckRegular(info.Mode()), paths.OfFile(path))
	case errors.Is(err, fs.ErrNotExist):
		err = errors.Unwrap(err)
	default:
		err = nil // os.OpenFile fails, too, and its error is the one to return.
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f, err := os.OpenFile(path, flag|nonBlocking, 0)
	for begin := time.Now(); isLeased(err) && time.Since(begin) < leasePatience; {
		time.Sleep(time.Millisecond)
		f, err = os.OpenFile(path, flag|nonBlocking, 0)
	}
	if err != nil {
		if isStale(err) {
			return nil, ErrAgain
		}
		return nil, err
	}
	info, err = f.Stat()
	if err == nil {
		if err = CheckRegular(info.Mode()); err == nil {
			return f, nil
		}
		err = &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f.Close()
	if Forgotten(err) {
		return nil, ErrAgain
	}
	return nil, err
}

// CheckRegular returns an error that says what kind of file has the mode,
// unless that is a regular file.
func CheckRegular(mode fs.FileMode) error {
	switch mode.Type() {
	case 0:
		return nil
	case fs.ModeDir:
		return &notRegularError{"is a directory, not a regular file", syscall.EISDIR}
	case fs.ModeSymlink:
		return &notRegularError{"is a symbolic link, not a regular file", errLink}
	case fs.ModeNamedPipe:
		return &notRegularError{"is a FIFO, not a regular file", syscall.EINVAL}
	case fs.ModeSocket:
		return &notRegularError{"is a socket, not a regular file", syscall.EINVAL}
	case fs.ModeIrregular:
		return &notRegularError{"is not a regular file", syscall.EINVAL}
	}
	return &notRegularError{"is a device, not a regular file", syscall.EINVAL}
}

// A notRegularError wraps the error of the system that comes closest.
type notRegularError struct {
	text string
	err  error
}

func (e *notRegularError) Error() string { return e.text }
func (e *notRegularError) Unwrap() error { return e.err }
