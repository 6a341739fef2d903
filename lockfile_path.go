package interlock

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
)

// The lock of a file that was removed or replaced protects nothing. So after
// each acquisition, and after a refusal, a lockFile checks that the open file is
// still the one at the path. On most local file systems, an unchanged ctime
// proves it for a while. Elsewhere, only a look at the path tells.

const (
	// ctimeSettled is how old a ctime must be to prove that no rename
	// followed it. The clock for ctimes ticks every 1 to 10 ms.
	// coarseSettled is for file systems that keep whole seconds, such as
	// ext2.
	ctimeSettled  = 20 * time.Millisecond
	coarseSettled = 1100 * time.Millisecond

	// pathCheckInterval is how long that proof counts. Renaming a directory
	// on the path moves the file without changing the file's ctime.
	pathCheckInterval = 10 * time.Millisecond

	// deletedPatience is how long the file at the path must have had no
	// links before that is an error.
	deletedPatience = 20 * time.Millisecond

	// leasePatience is how long a constructor waits for a process that has
	// a lease on the file.
	leasePatience = 500 * time.Millisecond
)

// errDeleted is the error for a file that was removed but can still be opened
// at its path, for example because of a bind mount. Other processes may see
// another file there.
var errDeleted = errors.New("the file was deleted, but can still be opened at its path")

// openLockFile opens the lock file at path, and creates it if it does not
// exist. It is for constructors.
func openLockFile(name, path string, o options, fair bool) (*lockFile, error) {
	f := newLockFile(name, path, o, fair)
	_, err := f.open(context.Background())
	for begin := time.Now(); (leased(err) || err == atpath.ErrAgain) && time.Since(begin) < leasePatience; {
		time.Sleep(time.Millisecond)
		_, err = f.open(context.Background())
	}
	if err == atpath.ErrAgain {
		err = pathError("open", name, atpath.ErrUnstable)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// open returns the open file. If there is none, it opens the path. That can
// block on any file system (one that is frozen, or watched by another program),
// so open returns when ctx is done. The error is [atpath.ErrAgain] if the path
// changes at the same time, ctx.Err(), or an [*fs.PathError].
func (f *lockFile) open(ctx context.Context) (*sysFile, error) {
	f.repair()
	if f.file != nil {
		return f.file, nil
	}
	var s *sysFile
	abandoned, err := f.opening(ctx, func() (err error) {
		s, err = openFile(f.path, true, f.opts.perm)
		return err
	}, func() {
		if s != nil {
			s.close()
		}
	})
	if abandoned {
		return nil, err
	}
	if s != nil { // even if ctx is done
		f.adopt(s)
	}
	if err == nil {
		err = f.call(ctx, func() error { return f.look(s) })
	}
	switch err {
	case nil:
		f.deletedSince = never
		return f.file, nil
	case errStale:
		err = atpath.ErrAgain
		if s.local && f.deleted(s) {
			err = f.fail(ctx, "open", errDeleted)
		}
	case atpath.ErrAgain:
	default:
		err = f.fail(ctx, "open", err)
	}
	if f.file != nil && ctx.Err() == nil {
		f.close()
	}
	return nil, err
}

// adopt makes s, which is not locked, the file.
func (f *lockFile) adopt(s *sysFile) {
	if f.opts.wholeFile {
		s.lockWhole()
	}
	f.file, f.device, f.knownAt = s, s.device(), never
	f.local, f.byteLocksLocal = s.local, s.knownFS
	f.clear = [2]time.Duration{never, never}
	f.pathZ = nil
	if s.local && !s.marked {
		f.pathZ = append([]byte(f.path), 0)
	}
}

// look returns errStale if s, the open file, is no longer the one at the path.
func (f *lockFile) look(s *sysFile) error {
	if !s.local {
		// Only the path tells. This code may run in an abandoned call,
		// so it must not use fields that change.
		id, err := s.identity()
		if err != nil {
			return err
		}
		if err = f.lookAtPath(id); errors.Is(err, fs.ErrPermission) {
			err = nil // see below
		}
		return err
	}
	if f.pathZ != nil && s.isNamed(f.pathZ) {
		return nil
	}
	id, err := s.identity()
	if err != nil {
		return err
	}
	now := clock()
	if id.links != 0 && id.changed == f.known && now-f.knownAt < pathCheckInterval {
		return nil
	}
	if id.links == 0 {
		return errStale
	}
	err = f.lookAtPath(id)
	if errors.Is(err, fs.ErrPermission) {
		// The process gave up rights after it opened the file. The
		// descriptor is all that it has.
		return nil
	}
	if err != nil || !s.marked {
		return err
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

// deleted reports whether s, which was just opened, has had no links for a
// while. While a file is being removed, it briefly has no links but is still at
// its path. So the state means nothing unless it lasts.
func (f *lockFile) deleted(s *sysFile) (lasts bool) {
	id, err := s.identity()
	if err != nil || id.links > 0 || f.lookAtPath(id) != nil {
		f.deletedSince = never
		return false
	}
	now := clock()
	if f.deletedSince == never {
		f.deletedSince = now
	}
	return now-f.deletedSince > deletedPatience
}

// lookAtPath returns errStale unless the file at the path has this identity.
func (f *lockFile) lookAtPath(id identity) error {
	at, err := pathIdentity(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !at.sameFile(id) {
		return errStale
	}
	return err
}
