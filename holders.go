package interlock

import (
	"io/fs"
)

// A Holder is a process that holds a lock, or waits for it.
type Holder struct {
	PID     int    // 0 if the system does not tell
	Command string // the name of its command, if it can be read
	Shared  bool   // for reading
	Waiting bool   // and does not hold it yet
}

// Holders returns who holds the lock on the file at path, and who waits for it in the kernel: first
// the holders. A process that holds it by several objects is one Holder, and so are all that wait for one
// [FileRWMutex] of a process. The path is that of a
// FileRWMutex, a [FileRMutex], a file locked by [Lock], or a slot file of a [FileSemaphore].
// Locks by fcntl(2) are not shown.
//
// It is a hint, for people: when Holders returns, it may be different already. The process
// is the one that has asked for the lock. Where that has passed the open file on and ended, its
// PID may belong to another by now. Those of other PID namespaces can be missing.
// Of those who wait behind the first, the system does not tell the PID, and where the file system is not
// known to be local they are not shown.
//
// Holders needs Linux and /proc, which shows all local file systems; on file systems of other machines it
// shows the processes of this one. Elsewhere the error matches [errors.ErrUnsupported].
// Errors are an [*fs.PathError].
func Holders(path string) ([]Holder, error) {
	h, err := holders(path)
	if err != nil {
		return nil, &fs.PathError{Op: "holders", Path: path, Err: err}
	}
	return h, nil
}
