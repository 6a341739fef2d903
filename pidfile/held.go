package pidfile

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/atpath"
)

// A heldError means that another process holds an exclusive lock on the file:
// the program is running.
type heldError struct {
	pid int   // or 0
	err error // why pid is 0
}

func (e *heldError) Error() string { return "already running" }

var errOther = errors.New("contains the process ID of a process that does not hold the lock")

// settle is how long the holder of a new lock may take to write its process ID.
const settle = 20 * time.Millisecond

// held returns a [*heldError] for f, the file at path, which another process
// has locked. It waits until the file contains the process ID of the holder,
// for as long as settle at most.
func held(f *os.File, path string) *heldError {
	for begin := time.Now(); ; time.Sleep(settle / 20) {
		pid, err := readPID(f)
		if err == nil && isOther(pid, f, path) {
			pid, err = 0, &fs.PathError{Op: "read", Path: path, Err: errOther}
		}
		current, statErr := atpath.IsAt(f, path, os.Lstat)
		if statErr != nil {
			return &heldError{0, statErr}
		}
		if err == nil || !current || time.Since(begin) > settle {
			return &heldError{pid, err}
		}
	}
}

// fresh is the age up to which the contents of a file are believed if the
// process exists. The system does not use the ID of a process again so soon.
const fresh = time.Second

// isOther reports whether the process with that ID is known not to hold the
// lock of f, the file at path. Either it is gone, or the system names another
// process that holds the lock. If that other process is gone, it has passed the
// lock on.
func isOther(pid int, f *os.File, path string) bool {
	if isGone(pid) {
		return true
	}
	// To ask the system takes long if many processes try to start.
	if info, err := f.Stat(); err == nil && time.Since(info.ModTime()) < fresh {
		return false
	}
	other := false
	holders, _ := interlock.Holders(path)
	for _, h := range holders {
		if h.Shared || h.Waiting || h.PID == 0 {
			continue
		}
		if h.PID == pid {
			return false
		}
		other = other || !isGone(h.PID)
	}
	return other
}
