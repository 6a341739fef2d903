package interlock

import (
	"io/fs"
	"slices"
	"time"
)

// An Option configures a lock. It is passed to a constructor.
type Option func(*options)

type options struct {
	perm      fs.FileMode
	poll      pollInterval
	trace     *Trace
	wholeFile bool
}

func newOptions(opts []Option) (options, error) {
	o := options{perm: 0o600, poll: defaultPollInterval}
	for _, opt := range opts {
		opt(&o)
	}
	if o.perm&^fs.ModePerm != 0 || o.poll.min <= 0 || o.poll.max < o.poll.min {
		return o, fs.ErrInvalid
	}
	return o, nil
}

// untraced returns opts without a [Trace], for a lock that only serves another
// one.
func untraced(opts []Option) []Option { return append(slices.Clip(opts), WithTrace(nil)) }

// WithPerm sets the permission bits, before umask, of a lock file that must be
// created. The default is 0600: other users cannot open the file, so they can
// neither acquire the lock nor keep others from it. The permissions of an
// existing file do not change.
//
// A user who can open the file for reading can acquire the lock, and keep it.
// So read permission is enough to share a lock between users, except on NFS
// version 4. But readers can starve a writer that has only read permission.
//
// If perm has bits other than permission bits, the constructor fails with an
// error that matches [fs.ErrInvalid].
func WithPerm(perm fs.FileMode) Option { return func(o *options) { o.perm = perm } }

// WithPollInterval sets the pauses of a wait that polls. They start at min and
// grow to max. The default is 50µs to 20ms, or 50µs to 250ms on Windows.
//
// On Linux, few waits poll. Examples are waits in a process that has more than
// 2048 waits at once or has no free descriptors, and waits on a file system
// that refuses to wait; see docs/guarantees.md.
//
// Unless 0 < min <= max, the constructor fails with an error that matches
// [fs.ErrInvalid].
func WithPollInterval(min, max time.Duration) Option {
	return func(o *options) { o.poll = pollInterval{min, max} }
}

// WithWholeFile makes the lock cover the whole file on Windows, too. On other
// systems it always does, and the option changes nothing.
//
// Without the option, a lock on Windows covers one byte beyond the end of any
// file. Programs that lock the first byte or the first few, such as gofrs/flock
// and Python's portalocker and filelock, do not see it. With the option, they
// take part in the lock. So do cmd/go's lockedfile and locks of this package
// without the option.
//
// Locks on Windows are mandatory, so the option has a price. While a process
// holds the lock, no other process can write the contents of the file. While a
// writer holds it, no other process can read them, and the same process cannot
// read them through another handle.
//
// For a [FileSemaphore], the option applies to the slot files.
func WithWholeFile() Option { return func(o *options) { o.wholeFile = true } }

// Must returns v, and panics if err is not nil. It is intended for variable
// initializations such as
//
//	var mu = interlock.Must(interlock.NewFileRWMutex("/run/lock/app.lock"))
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
