package interlock

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// A hold is how a lock file, or its gate, is held or wanted.
type hold int8

const (
	free hold = iota
	shared
	exclusive
	releasing // free, as soon as a call that gives it up has returned
)

// op is the name of the operation that gets such a hold, for errors.
func (m hold) op() string {
	if m == shared {
		return "rlock"
	}
	return "lock"
}

// A lockFile is one open file description of a lock file, and what waiting takes.
//
// Its methods are for who may act on the file (see [waiter]), with the exception of unlock. A join
// that was abandoned may go on beside them: it changes nothing on a file that is not local.
type lockFile struct {
	handle
	path string // absolute
	perm fs.FileMode
	name []byte // path with a NUL, where only a look there tells whether it is the file's; else nil

	// The gate stops newcomers while somebody waits: whoever has to wait for the lock
	// takes the gate first, a writer exclusive, a reader shared, and leaves it once it has the
	// lock. Everybody asks whether it is taken before they lock. A description of its own:
	// to give up a wait at the gate may mean to give up its description, and the lock must
	// not depend on it.
	gate  *handle // nil until first needed
	gated bool    // we stand at the gate

	dead bool // handle is closed; only to be disposed of

	known   int64         // the ctime with which the file was last seen at path
	knownAt time.Duration // when that was; never if that ctime proves nothing
}

// An identity tells files apart.
type identity struct {
	dev, ino uint64
	links    uint64 // how many paths lead to it
	changed  int64  // its ctime, in ns
}

// errStale: the file is not the one at the path any more. Callers of the package see it only if that
// does not end.
var errStale = errors.New("the file is removed or replaced again and again")

// asStale returns errStale if err says that the server does not know the file any more.
func asStale(err error) error {
	if unknownFile(err) {
		return errStale
	}
	return err
}

// openLockFile opens the lock file at path, and creates it if need be.
func openLockFile(path string, perm fs.FileMode) (*lockFile, error) {
	h, err := openHandle(path, true, perm)
	if err != nil {
		return nil, err
	}
	f := &lockFile{handle: h, path: path, perm: perm, knownAt: never}
	if f.local && !f.marked {
		f.name = append([]byte(path), 0)
	}
	return f, nil
}

// openLock is openLockFile for a lock with these options.
func (o *options) openLock(path string) (*lockFile, error) {
	f, err := openLockFile(path, o.perm)
	if err == nil && o.wholeFile {
		f.lockWhole()
	}
	return f, err
}

// call makes a call to the file system by [callFS], or simply makes it if that always answers.
func (f *lockFile) call(ctx context.Context, call func() error, dispose func()) error {
	if f.local {
		return call()
	}
	return callFS(ctx, f.device(), call, dispose)
}

var epoch = time.Now()

// clock is a monotonic time, cheaper than time.Now.
func clock() time.Duration { return time.Since(epoch) }

// never is a time so long ago that nothing known then counts.
const never = -time.Hour

const (
	// ctimeSettled is the age from which a ctime proves that no rename came after: the
	// clock behind ctimes ticks every 1 to 10 ms. coarseSettled is for file systems that
	// keep only the second, such as ext2.
	ctimeSettled  = 20 * time.Millisecond
	coarseSettled = 1100 * time.Millisecond
	// pathCheckInterval is how long that is believed. The file may have left its path with
	// its directory, which leaves the ctime alone.
	pathCheckInterval = 10 * time.Millisecond
)

// current returns errStale if the file is not the one at its path any more.
func (f *lockFile) current(now time.Duration) error {
	if f.isNamed() {
		return nil
	}
	id, err := f.identity()
	if err != nil {
		return err
	}
	if id.links == 0 && f.local { // others may count no links
		return errStale
	}
	if id.changed == f.known && now-f.knownAt < pathCheckInterval {
		return nil
	}
	at, err := pathIdentity(f.path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil // we gave up rights after opening it; our descriptor is all there is
	case errors.Is(err, fs.ErrNotExist), err == nil && (at.dev != id.dev || at.ino != id.ino):
		return errStale
	case err != nil:
		return err
	}
	if !f.marked {
		return nil
	}
	f.known, f.knownAt = id.changed, never
	settled := ctimeSettled
	if id.changed%int64(time.Second) == 0 {
		settled = coarseSettled
	}
	if time.Now().UnixNano()-id.changed > int64(settled) {
		f.knownAt = now
	}
	return nil
}

// acquire takes the lock unless somebody holds it or, if ask is set, waits for it: ErrLocked.
// After errStale, the file must be opened anew. It holds nothing unless it returns nil.
func (f *lockFile) acquire(m hold, ask bool, now time.Duration) error {
	err := ErrLocked
	if !ask || !f.gateTaken(m) {
		err = asStale(f.tryLock(m))
	}
	if err != nil && err != ErrLocked {
		return err
	}
	// After a refusal too: or the holder of a file that is gone would be waited for.
	stale := f.current(now)
	if stale == nil && err == nil && f.removing() { // but if its name is not, who holds it is in the way of a new one
		stale = errStale
	}
	if stale != nil {
		if err == nil {
			f.unlock()
		}
		return stale
	}
	return err
}

// join returns ErrLocked if the lock that f holds must not be passed on to another holder
// in the mode m, since ask is set and somebody foreign waits.
func (f *lockFile) join(m hold, ask bool, now time.Duration) error {
	if err := f.current(now); err != nil {
		return err
	}
	if ask && f.gateTaken(m) {
		return ErrLocked
	}
	return nil
}

// close gives up the lock, the gate and the descriptors.
func (f *lockFile) close() {
	f.closeGate()
	f.closeLock()
}

// closeLock gives up the lock. Closing alone would not do while a child process between fork
// and exec has a copy of the descriptor.
func (f *lockFile) closeLock() {
	if !f.dead {
		f.unlock()
		f.handle.close()
	}
}

// kill closes a descriptor that cannot be unlocked otherwise.
func (f *lockFile) kill() {
	f.handle.close()
	f.dead = true
}
