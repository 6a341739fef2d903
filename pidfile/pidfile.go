// Package pidfile makes sure that only one instance of a program runs at a
// time. It uses a file that contains the process ID.
//
//	file, err := pidfile.Create("/run/app.pid")
//	if err != nil {
//		log.Fatal(err) // pidfile /run/app.pid: already running (PID 123)
//	}
//	defer file.Close()
//
// The lock on the file ([interlock.TryLock], on Unix flock(2)) is the only
// evidence that the program is running; the file's existence and contents are
// not. The lock ends when the process does, for whatever reason. So a file that
// a crash leaves does not stop the next start. Child processes do not inherit
// the lock.
//
// The process ID is for people. Do not send a signal to it if other users may
// write to the file. More is in [docs/pidfile.md].
//
// [docs/pidfile.md]: https://github.com/interlock-go/interlock/blob/main/docs/pidfile.md
package pidfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/atpath"
)

// A RunningError means that the program is already running. It matches
// [interlock.ErrLocked].
type RunningError struct {
	Path string // of the PID file
	PID  int    // of the running program, or 0 if it is not known
}

func (e *RunningError) Error() string {
	if e.PID == 0 {
		return "pidfile " + e.Path + ": already running"
	}
	return fmt.Sprintf("pidfile %s: already running (PID %d)", e.Path, e.PID)
}

// Unwrap returns [interlock.ErrLocked].
func (e *RunningError) Unwrap() error { return interlock.ErrLocked }

// A File is the PID file of this process, from [Create] until Close or the end
// of the process.
type File struct {
	file *os.File
	path string // absolute, because a daemon changes its working directory
	once sync.Once
}

// files contains every File that is not closed. Otherwise the garbage collector
// would close the file of a File that the program does not refer to any more,
// and that would end the lock.
var files sync.Map

// Create creates the file at path, or takes over the one that is there, and
// writes the process ID and a newline to it. If the program is already running,
// the error is a [*RunningError].
//
// The file gets mode 0644, before umask. Create refuses a symbolic link,
// anything else that is not a regular file, and a file that contains something
// other than a process ID. All errors except the RunningError are an
// [*fs.PathError].
//
// Create does not wait for another instance. If another process holds a shared
// lock on the file, as [Read] does for an instant, Create tries for up to a
// second. After that, the error matches [interlock.ErrLocked].
func Create(path string) (*File, error) {
	abs, err := atpath.Absolute(path)
	if err != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	f, err := create(path)
	if err != nil {
		var held *heldError
		if errors.As(err, &held) {
			return nil, &RunningError{path, held.pid}
		}
		return nil, pathError("create", path, err)
	}
	file := &File{file: f, path: abs}
	files.Store(file, nil)
	return file, nil
}

// Close removes the file and then releases the lock. It does not remove a file
// that another process has put in its place. If the file cannot be removed,
// Close returns the error, but releases the lock nevertheless. On Windows,
// Close releases the lock first, and it is no error if the file cannot be
// removed.
//
// If the File is already closed, the error matches [fs.ErrClosed].
func (f *File) Close() error {
	err := pathError("close", f.file.Name(), fs.ErrClosed)
	f.once.Do(func() {
		files.Delete(f)
		err = removeAndRelease(f.file, f.path)
	})
	return err
}

// pathError returns err as an [*fs.PathError], which it usually is.
func pathError(op, path string, err error) error {
	if errors.As(err, new(*fs.PathError)) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
