package pidfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/atpath"
)

// Read returns the process ID in the file at path, and whether that process is
// running and holds the lock. If it is not running, the process ID is the one
// of a process that crashed; the system may have given it to another process
// since.
//
// If there is no file, the error matches [fs.ErrNotExist]. If the file contains
// no process ID, or the ID of a process that certainly does not hold the lock,
// the error is an [*fs.PathError] and pid is 0. Even then, running is correct.
func Read(path string) (pid int, running bool, err error) {
	err = retry(func() (err error) {
		pid, err = readOnce(path)
		return err
	})
	if err == nil {
		return pid, false, nil
	}
	var held *heldError
	if !errors.As(err, &held) {
		return 0, false, pathError("read", path, err)
	}
	if held.err != nil {
		return 0, true, pathError("read", path, held.err)
	}
	return held.pid, true, nil
}

// readOnce returns the process ID in the file at path. The error is a
// [*heldError] if the program is running.
func readOnce(path string) (pid int, err error) {
	f, err := atpath.Lock(context.Background(), atpath.Steps[*os.File]{
		Open: func() (*os.File, error) { return atpath.OpenRegular(path, os.O_RDONLY|noFollow, os.Lstat) },
		Lock: func(f *os.File) error {
			err := interlock.TryRLock(f)
			if errors.Is(err, interlock.ErrLocked) {
				return held(f, path)
			}
			return err
		},
		Current: func(f *os.File) (bool, error) { return atpath.IsAt(f, path, os.Lstat) },
		Discard: func(f *os.File) { release(f) },
	})
	if f == nil {
		return 0, err
	}
	defer release(f)
	if err != nil {
		return 0, err
	}
	return readPID(f)
}

// maxSize is more than the size of any PID file.
const maxSize = 32

var errNoPID = errors.New("does not contain a process ID")

// readPID returns the process ID in f.
func readPID(f *os.File) (int, error) {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxSize))
	if err != nil {
		return 0, err
	}
	// Without the newline, it may be only the first digits.
	digits, complete := bytes.CutSuffix(data, []byte("\n"))
	pid, err := strconv.ParseInt(string(digits), 10, 32)
	if !complete || err != nil || pid <= 0 {
		return 0, &fs.PathError{Op: "read", Path: f.Name(), Err: errNoPID}
	}
	return int(pid), nil
}
