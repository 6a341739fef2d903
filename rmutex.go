package interlock

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock/internal/paths"
)

// An Owner is a token that stands for who holds a [FileRMutex]: a request, a job, a call with all the
// calls it makes, on however many goroutines. Owners are comparable, and mean something in the
// process that made them only. The zero Owner owns nothing: to lock with it panics.
type Owner struct{ id uint64 }

var owners atomic.Uint64

// NewOwner returns an Owner that differs from all others of this process.
func NewOwner() Owner { return Owner{owners.Add(1)} }

type ownerKey struct{}

// ContextWithOwner returns a context that carries o, for [OwnerFromContext] and [FileRMutex.Do].
// It panics if o is the zero Owner.
func ContextWithOwner(ctx context.Context, o Owner) context.Context {
	o.mustBeValid()
	return context.WithValue(ctx, ownerKey{}, o)
}

// OwnerFromContext returns the Owner that ctx carries, if any.
func OwnerFromContext(ctx context.Context) (Owner, bool) {
	o, ok := ctx.Value(ownerKey{}).(Owner)
	return o, ok
}

func (o Owner) mustBeValid() {
	if o == (Owner{}) {
		panic("interlock: the zero Owner; use NewOwner")
	}
}

// A FileRMutex is a reentrant mutual exclusion lock between processes: whoever holds it can lock
// it again, and it is free once it was unlocked as often. It is [FileRWMutex]'s lock for
// writing, over the same file even, with whose users it excludes itself; what is said
// there of waiting, crashes and the lock file holds here too.
//
// Its holder is an [Owner], which is passed explicitly, and never a goroutine. All goroutines
// that have the Owner share the hold: while one of them has the lock, the others get it
// at once, and if several wait for it, all get it together. Between them it
// excludes nothing. Without the Owner nobody gets in.
//
// Inner locks ask nothing of the system.
//
// # Several objects for one file
//
// All FileRMutexes that a process makes for one path are the same lock: an Owner who holds it by
// one of them gets it by another too, and does not wait for itself. So libraries that do
// not know of each other can lock the same file under one Owner, which [FileRMutex.Do] passes on by the
// context. What was locked by one object must be unlocked by the same. The options are those of the first,
// except that each has its own [Trace], which tells when an owner has locked the file by that object, and when it has
// undone all of that; others may still hold it for the same owner.
// The path counts, with symbolic links to directories resolved when the object is made; by different names of one file (hard
// links, mounts), an Owner does wait for itself. So does who holds the file by a FileRWMutex.
//
// In different processes, owners are always different.
type FileRMutex struct {
	path  string
	lock  *reentrant
	trace *tracer // or nil

	// Guarded by lock.mu.
	depth   int // how often it was locked by this object
	waiting int // how many wait for it by this object
	closed  bool
}

// A reentrant is what all FileRMutexes of a process for one path have in common.
type reentrant struct {
	m    *FileRWMutex
	key  string
	refs int // how many FileRMutexes; guarded by reentrants.mu

	// mu is never held while waiting.
	mu    sync.Mutex
	owner Owner // who holds m, or zero
	depth int   // how often
	// waits has an entry for each owner for whom m is being locked: by a goroutine that
	// is not in the list, for all that are, in order.
	waits map[Owner][]*follower
}

// A follower waits for what another goroutine of the same owner locks. Of these, only one is set.
type follower struct {
	granted bool // it holds the lock
	drives  bool // the other one gave up: it is to lock m itself
	wake    chan struct{}
}

var reentrants struct {
	mu    sync.Mutex
	byKey map[string]*reentrant
}

// NewFileRMutex returns an unlocked FileRMutex over the file at path. It creates and checks the file as
// [NewFileRWMutex] does, and has the same errors.
func NewFileRMutex(path string, opts ...Option) (*FileRMutex, error) {
	key := canonical(path)
	m, err := NewFileRWMutex(key, untraced(opts)...)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			pathErr.Path = path
		}
		return nil, err
	}
	reentrants.mu.Lock()
	defer reentrants.mu.Unlock()
	r := reentrants.byKey[key]
	if r != nil {
		m.Close()
	} else {
		r = &reentrant{m: m, key: key, waits: make(map[Owner][]*follower)}
		if reentrants.byKey == nil {
			reentrants.byKey = make(map[string]*reentrant)
		}
		reentrants.byKey[key] = r
	}
	r.refs++
	o, _ := newOptions(opts)
	return &FileRMutex{path: path, lock: r, trace: newTracer(o.trace, path)}, nil
}

// canonical returns the one path without links that leads to the directory, with the file's name.
func canonical(path string) string {
	abs, err := absolute(path)
	if err != nil {
		return path
	}
	// Not filepath.Dir, which takes "link/.." for nothing.
	dir, name := filepath.Split(abs)
	resolved, err := filepath.EvalSymlinks(dir)
	if err == nil {
		if same, _ := paths.Same(dir, resolved); same {
			return filepath.Join(resolved, name)
		}
	}
	return abs // such as what leads to another mount namespace (/proc/PID/root)
}

// Path returns the path that the FileRMutex was made with.
func (m *FileRMutex) Path() string { return m.path }

// Lock locks m for o, and waits until it can. If o holds m already, it does so once more.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRMutex) Lock(o Owner) {
	if err := m.lockFor(context.Background(), o, true); err != nil {
		panic(err)
	}
}

// TryLock tries to lock m for o and reports whether it succeeded. It fails if anybody but o holds
// the lock, or waits for it, and also if o waits for it on another goroutine.
//
// For up to 50µs it may overlook who waits in another process.
//
// It panics with an [*fs.PathError] in the rare case that the system refuses, or if m is closed.
func (m *FileRMutex) TryLock(o Owner) bool {
	err := m.lockFor(context.Background(), o, false)
	if err != nil && !errors.Is(err, ErrLocked) {
		panic(err)
	}
	return err == nil
}

// LockContext locks m for o, and waits until it can or ctx ends. If ctx ends first, and also if
// it has ended already, the error is ctx.Err(), and o holds m as often as before. Other errors
// are those of [FileRWMutex.LockContext].
//
// If the first of several waiting goroutines of o gives up, another one of them begins to wait in
// its place, after whoever else waits by then.
func (m *FileRMutex) LockContext(ctx context.Context, o Owner) error {
	return m.lockFor(ctx, o, true)
}

// TryLockContext is [FileRMutex.TryLock] with errors like those of [FileRMutex.LockContext].
// If the lock cannot be had, the error matches [ErrLocked].
func (m *FileRMutex) TryLockContext(ctx context.Context, o Owner) error {
	return m.lockFor(ctx, o, false)
}

func (m *FileRMutex) lockFor(ctx context.Context, o Owner, wait bool) (err error) {
	o.mustBeValid()
	if m.trace != nil {
		err = m.trace.acquire(false, 1, wait, func(wait bool) error { return m.lockUntraced(ctx, o, wait) })
	} else {
		err = m.lockUntraced(ctx, o, wait)
	}
	if err == errInner {
		return nil
	}
	return pathError(ctx, exclusive.op(), m.path, err)
}

// lockUntraced returns errInner if o had locked it by m already.
func (m *FileRMutex) lockUntraced(ctx context.Context, o Owner, wait bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.closed {
		return fs.ErrClosed
	}
	m.waiting++
	err := r.acquire(ctx, o, wait)
	m.waiting--
	if err == nil {
		if m.depth > 0 {
			err = errInner
		}
		m.depth++
	}
	return err
}

// acquire makes o hold r once more than before. mu is held.
func (r *reentrant) acquire(ctx context.Context, o Owner, wait bool) error {
	if r.owner == o {
		r.depth++
		return nil
	}
	_, waits := r.waits[o]
	if waits && !wait {
		return ErrLocked
	}
	if !waits && r.m.answersAtOnce() {
		err := r.m.lock(ctx, exclusive, false)
		if err == nil {
			r.owner, r.depth = o, 1
		}
		if err != ErrLocked || !wait {
			return err
		}
	}
	if waits {
		if granted, err := r.follow(ctx, o); granted || err != nil {
			return err
		}
	} else {
		r.waits[o] = nil
	}
	r.mu.Unlock()
	err := r.m.lock(ctx, exclusive, wait)
	r.mu.Lock()
	if err != nil {
		r.drivesNext(o)
		return err
	}
	followers := r.waits[o]
	delete(r.waits, o)
	r.owner, r.depth = o, 1+len(followers)
	for _, f := range followers {
		f.granted = true
		close(f.wake)
	}
	return nil
}

// follow waits until the goroutine that locks m for o has done so, or has given up and it is the turn
// of the caller to lock it.
func (r *reentrant) follow(ctx context.Context, o Owner) (granted bool, err error) {
	f := &follower{wake: make(chan struct{})}
	r.waits[o] = append(r.waits[o], f)
	r.mu.Unlock()
	select {
	case <-f.wake:
	case <-ctx.Done():
	}
	r.mu.Lock()
	err = ctx.Err()
	switch {
	case err == nil:
	case f.granted: // and cancelled at once: pretend it was not
		r.release(func() { briefly(r.m.Unlock) })
	case f.drives:
		r.drivesNext(o)
	default:
		r.waits[o] = slices.DeleteFunc(r.waits[o], func(other *follower) bool { return other == f })
	}
	return f.granted, err
}

// drivesNext lets the first follower lock m for o, after who was to do so has given up.
func (r *reentrant) drivesNext(o Owner) {
	followers := r.waits[o]
	if len(followers) == 0 {
		delete(r.waits, o)
		return
	}
	r.waits[o] = followers[1:]
	followers[0].drives = true
	close(followers[0].wake)
}

// release undoes one hold of the owner, and calls unlock, without mu, if that was the last.
func (r *reentrant) release(unlock func()) {
	if r.depth--; r.depth > 0 {
		return
	}
	r.owner = Owner{}
	r.mu.Unlock() // the file system may not answer
	unlock()
	r.mu.Lock()
}

// Unlock undoes one lock of o; the last one unlocks the file. It panics, and changes
// nothing, if o does not hold m.
func (m *FileRMutex) Unlock(o Owner) {
	o.mustBeValid()
	r := m.lock
	r.mu.Lock()
	if r.owner != o || m.depth == 0 {
		r.mu.Unlock()
		panic("interlock: Unlock of FileRMutex not locked by this owner: " + m.path)
	}
	m.depth--
	outer := m.depth == 0
	var held time.Duration
	if outer {
		held = m.trace.end(1)
	}
	r.release(r.m.Unlock)
	r.mu.Unlock()
	if outer {
		m.trace.released(false, 1, held)
	}
}

// Depth returns how often o holds the lock, by whichever object for this path: 0 if it does
// not. It never waits for a holder or for somebody who waits.
func (m *FileRMutex) Depth(o Owner) int {
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owner != o {
		return 0
	}
	return r.depth
}

// Locker returns a [sync.Locker] whose Lock and Unlock call m.Lock(o) and m.Unlock(o). It
// panics if o is the zero Owner.
func (m *FileRMutex) Locker(o Owner) sync.Locker {
	o.mustBeValid()
	return &ownerLocker{m, o}
}

type ownerLocker struct {
	m *FileRMutex
	o Owner
}

func (l *ownerLocker) Lock()   { l.m.Lock(l.o) }
func (l *ownerLocker) Unlock() { l.m.Unlock(l.o) }

// Do calls f while m is locked, for the Owner that ctx carries, or else for a new one,
// which the context of f carries then. So f, and whatever it passes its context to, can call Do
// again, of this FileRMutex and others. When f returns or panics, m is unlocked once.
//
// The error is that of f, or that of [FileRMutex.LockContext], and then f was not called.
//
// As with any locks, to lock several in different orders can deadlock; until ctx ends.
func (m *FileRMutex) Do(ctx context.Context, f func(ctx context.Context) error) error {
	o, ok := OwnerFromContext(ctx)
	if !ok {
		o = NewOwner()
		ctx = ContextWithOwner(ctx, o)
	}
	if err := m.LockContext(ctx, o); err != nil {
		return err
	}
	defer m.Unlock(o)
	return f(ctx)
}

// Close gives up the lock file, without removing it. It is an error, and changes nothing, to
// close an m that is locked, or waited for, by itself; other objects for the path do not
// matter. After Close, locking m fails with an error that matches [fs.ErrClosed], and so does
// Close.
func (m *FileRMutex) Close() error {
	reentrants.mu.Lock()
	defer reentrants.mu.Unlock()
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	err := fs.ErrClosed
	if !m.closed {
		err = errInUse
		if m.depth == 0 && m.waiting == 0 {
			err = nil
		}
	}
	if err != nil {
		return &fs.PathError{Op: "close", Path: m.path, Err: err}
	}
	if r.refs == 1 {
		if err := r.m.Close(); err != nil {
			return err
		}
		delete(reentrants.byKey, r.key)
	}
	r.refs--
	m.closed = true
	return nil
}
