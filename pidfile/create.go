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

// create opens the file at path or creates it, locks it, and writes our process
// ID to it. The error matches a [*heldError] if the program is already running.
func create(path string) (f *os.File, err error) {
	err = retry(func() (err error) {
		f, err = createOnce(path)
		return err
	})
	return f, err
}

func createOnce(path string) (*os.File, error) {
	created := false
	f, err := atpath.Lock(context.Background(), atpath.Steps[*os.File]{
		Open: func() (f *os.File, err error) {
			f, created, err = openOrCreate(path)
			return f, err
		},
		Lock:    func(f *os.File) error { return tryLock(f, path) },
		Current: func(f *os.File) (bool, error) { return atpath.IsAt(f, path, os.Lstat) },
		Discard: func(f *os.File) { release(f) },
	})
	switch {
	case f == nil:
		return nil, err
	case err == nil:
		return takeOver(f, path)
	case created && noLocksAt(err):
		removeAndRelease(f, path)
	default:
		release(f)
	}
	return nil, err
}

// tryLock acquires an exclusive lock on f, the file at path. The error is a
// [*heldError] if the program is already running, and matches
// [interlock.ErrLocked] if another process merely looks at the file.
func tryLock(f *os.File, path string) error {
	err := interlock.TryLock(f)
	if !errors.Is(err, interlock.ErrLocked) {
		return err
	}
	// Read acquires a shared lock, a running program an exclusive one.
	if !errors.Is(interlock.TryRLock(f), interlock.ErrLocked) {
		return err
	}
	return held(f, path)
}

// noLocksAt reports whether err means that no process can lock a file at that
// place. ENOLCK does not: this process got no lock, but another one may hold
// it.
func noLocksAt(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) && !isNoLocksLeft(err)
}

// takeOver writes our process ID to f, which is locked. If that fails, it gives
// up f and removes it, unless it contains something else.
func takeOver(f *os.File, path string) (*os.File, error) {
	if err := mayOverwrite(f); err != nil {
		if info, statErr := f.Stat(); statErr == nil && info.Size() == 0 {
			removeAndRelease(f, path) // This call may have created it.
		} else {
			release(f)
		}
		return nil, err
	}
	if err := write(f); err != nil {
		removeAndRelease(f, path)
		return nil, err
	}
	return f, nil
}

// mayOverwrite returns an error unless the contents of f are left from a PID
// file. A crash can leave part of a process ID, and a power failure NUL bytes.
func mayOverwrite(f *os.File) error {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, maxSize))
	if err != nil {
		return err
	}
	if len(data) == maxSize || len(bytes.Trim(data, "0123456789 \r\n\x00")) > 0 {
		return &fs.PathError{Op: "create", Path: f.Name(), Err: errNoPID}
	}
	return nil
}

// write replaces the contents of f with our process ID.
func write(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt(append(strconv.AppendInt(nil, int64(os.Getpid()), 10), '\n'), 0)
	return err
}
