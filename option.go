package interlock

import (
	"io/fs"
	"slices"
	"time"
)

// An Option changes how a lock is made.
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

// untraced is opts for what serves a lock only.
func untraced(opts []Option) []Option { return append(slices.Clip(opts), WithTrace(nil)) }

// WithPerm sets the permission bits (before umask) of a lock file that must be created.
// The default is 0600: other users cannot open the file, and so can neither lock it nor hold
// up who does. The permissions of a file that exists are never changed.
//
// Whoever can open the file for reading can take the lock, and keep it. To share a lock
// between users, readable is enough; but a writer who may only read the file can be
// overtaken by readers for ever.
//
// Bits other than permission bits make the constructor fail with an error matching
// [fs.ErrInvalid].
func WithPerm(perm fs.FileMode) Option { return func(o *options) { o.perm = perm } }

// WithPollInterval sets the pauses between two tries to lock, in the few cases where the
// system cannot wait for us: they start at min and grow to max. The default is 50µs to 20ms, in Windows to 250ms.
// On Linux these cases are more than 2048 waits at once in the process, a lack of descriptors, and
// a file system that refuses to wait.
//
// Unless 0 < min <= max, the constructor fails with an error matching [fs.ErrInvalid].
func WithPollInterval(min, max time.Duration) Option {
	return func(o *options) { o.poll = pollInterval{min, max} }
}

// WithWholeFile makes the lock one of the whole file in Windows too, as it is on other systems anyway, where this
// option changes nothing.
//
// In Windows a lock is otherwise of one byte that no file reaches, which those do not see who lock the first
// byte or the first few: gofrs/flock, Python's portalocker and filelock. With WithWholeFile they take part in the same
// lock, and so do cmd/go's lockedfile and whoever uses this package without the option. The price is that locks
// are mandatory in Windows: while somebody holds such a lock, nobody else can write what is in
// the file, and while a writer holds it, nobody else can read it; not even its own process by another handle.
//
// Of a [FileSemaphore] these are the slot files.
func WithWholeFile() Option { return func(o *options) { o.wholeFile = true } }

// Must returns v, and panics if err is not nil. It is for package-level variables:
//
//	var mu = interlock.Must(interlock.NewFileRWMutex("/run/lock/app.lock"))
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
