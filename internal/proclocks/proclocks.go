// Package proclocks reads the kernel's list of file locks, /proc/locks, on
// Linux.
package proclocks

// A Lock is a lock that a process holds, or waits for.
type Lock struct {
	Kind       string // "FLOCK" for flock(2), "POSIX" and "OFDLCK" for fcntl(2)
	Shared     bool   // for reading
	Waiting    bool   // not held yet
	PID        int    // the process that asked for it; 0 if unknown, as for OFDLCK
	Start, End int64  // the first and the last byte; math.MaxInt64 is the last possible
}

// Of returns the locks of the regular file at path. It names the processes in
// the PID namespace that /proc belongs to, and leaves out locks of processes
// that have no PID there. A process that holds a lock several times, or waits
// for it several times, is usually listed once.
//
// On a network file system, Of knows only the locks of this machine. On systems
// other than Linux, the error matches [errors.ErrUnsupported].
func Of(path string) ([]Lock, error) { return of(path) }
