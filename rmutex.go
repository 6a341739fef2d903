package interlock

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/offload"
)

// An Owner identifies the holder of a [FileRMutex]. It may stand for a request,
// a job, or a call with all the calls that it makes, on any number of
// goroutines. Owners are comparable. They are meaningful only in the process
// that created them: Owners of different processes are always different.
// Locking with the zero Owner panics.
type Owner struct{ id uint64 }

var owners atomic.Uint64

// NewOwner returns an Owner that differs from every other Owner of this
// process.
func NewOwner() Owner { return Owner{owners.Add(1)} }

type ownerKey struct{}

// ContextWithOwner returns a copy of ctx that carries o, for [OwnerFromContext]
// and [FileRMutex.Do]. It panics if o is the zero Owner.
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
		panic("interlock: use of the zero Owner; call NewOwner")
	}
}

// A FileRMutex is a reentrant mutual exclusion lock between processes. Its
// holder is not a goroutine but an [Owner], which callers pass explicitly. The
// owner may lock it again. The lock is free once the owner has unlocked it as
// many times as it locked it.
//
// All goroutines that have the Owner share the lock. While one of them holds
// it, the others acquire it at once, without a system call. If several of them
// wait, they acquire it together. They do not exclude each other. A goroutine
// that does not have the Owner must wait.
//
// A FileRMutex is the write lock of a [FileRWMutex] for the same file, so the
// two exclude each other. Waiting, crashes and the lock file are as described
// there.
//
// All FileRMutexes that a process creates for one path are the same lock: an
// owner that holds it through one of them can acquire it through another. So
// libraries that do not know of each other can lock the same file under one
// Owner, which [FileRMutex.Do] passes on in the context. Each lock must be
// undone through the object that acquired it. The options are those of the
// first object, except that each has its own [Trace].
//
// An owner waits for itself if it uses two names of one file (hard links,
// mounts), or a FileRMutex and a FileRWMutex for the same file. Symbolic links
// to directories do no harm: they are resolved when the object is created.
type FileRMutex struct {
	path  string
	lock  *reentrant
	trace *tracer // or nil

	// Guarded by lock.mu.
	depth   int // how many times it is locked through this object
	waiting int // number of goroutines that wait for it through this object
	closed  bool
}

// A reentrant is what all FileRMutexes of a process for one path share.
type reentrant struct {
	m    *FileRWMutex
	key  string
	refs int // number of FileRMutexes; guarded by reentrants.mu

	// mu guards the fields below. It is not held during calls that can take
	// long.
	mu    sync.Mutex
	owner Owner // the holder of m, or zero
	depth int   // how many times the owner holds m

	// waits has the waiters of each owner. Their leader locks m. Then all
	// of them hold it.
	waits map[Owner]*queue
}

var reentrants struct {
	mu    sync.Mutex
	byKey map[string]*reentrant
}

// NewFileRMutex returns an unlocked FileRMutex for the file at path. It creates
// and checks the file like [NewFileRWMutex], and returns the same errors.
func NewFileRMutex(path string, opts ...Option) (*FileRMutex, error) {
	key := atpath.Resolve(path)
	m, err := NewFileRWMutex(key, untraced(opts)...)
	if err != nil {
		return nil, atPath(path, err)
	}
	reentrants.mu.Lock()
	defer reentrants.mu.Unlock()
	r := reentrants.byKey[key]
	if r != nil {
		m.Close()
	} else {
		r = &reentrant{m: m, key: key, waits: make(map[Owner]*queue)}
		if reentrants.byKey == nil {
			reentrants.byKey = make(map[string]*reentrant)
		}
		reentrants.byKey[key] = r
	}
	r.refs++
	o, _ := newOptions(opts)
	return &FileRMutex{path: path, lock: r, trace: newTracer(o.trace, path)}, nil
}

// atPath makes err an error about path. It may name the resolved path before.
func atPath(path string, err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return errorAt(pathErr.Op, path, err)
	}
	return err
}

// Path returns the path that was passed to [NewFileRMutex].
func (m *FileRMutex) Path() string { return m.path }

// Lock locks m for o. It blocks until the lock is available. If o holds m
// already, Lock returns at once, and o holds m once more.
//
// Lock panics with an [*fs.PathError] if m is closed, or in the rare case that
// the system refuses the lock.
func (m *FileRMutex) Lock(o Owner) { mustLock(m.lockFor(context.Background(), o, false)) }

// TryLock tries to lock m for o and reports whether it succeeded. It succeeds
// if o holds m already. Otherwise, it fails if any other owner or process holds
// the lock or waits for it, or if another goroutine that has o waits for it. It
// panics like [FileRMutex.Lock].
func (m *FileRMutex) TryLock(o Owner) bool {
	return mustLock(m.lockFor(context.Background(), o, true))
}

// LockContext locks m for o. It blocks until the lock is available or ctx is
// done. If ctx is done, even before the call, LockContext returns ctx.Err(),
// and o holds m as many times as before. Other errors are those of
// [FileRWMutex.LockContext].
func (m *FileRMutex) LockContext(ctx context.Context, o Owner) error {
	return m.lockFor(ctx, o, false)
}

// TryLockContext never waits for a holder. It is like [FileRMutex.TryLock], but
// returns the errors of [FileRMutex.LockContext]. If the lock is not available,
// the error matches [ErrLocked].
func (m *FileRMutex) TryLockContext(ctx context.Context, o Owner) error {
	err := m.lockFor(ctx, o, true)
	if err == ErrLocked {
		err = pathError(exclusive.op(), m.path, err)
	}
	return err
}

// lockFor locks m for o. If try is set, it returns ErrLocked instead of
// waiting.
func (m *FileRMutex) lockFor(ctx context.Context, o Owner, try bool) error {
	o.mustBeValid()
	if m.trace != nil {
		return m.trace.acquire(false, 1, try, func(try bool) (bool, error) { return m.lockUntraced(ctx, o, try) })
	}
	_, err := m.lockUntraced(ctx, o, try)
	return err
}

// lockUntraced is lockFor without hooks. isNew is false if o had already locked
// m through this object.
func (m *FileRMutex) lockUntraced(ctx context.Context, o Owner, try bool) (isNew bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	q, w, isNew, err := m.enter(o, try)
	if w == nil {
		return isNew, err
	}
	state := q.await(&m.lock.mu, ctx.Done(), w)
	if state == leading {
		return m.finish(o, w, m.lock.m.lock(ctx, exclusive, try))
	}
	err = ctx.Err()
	if state == granted && err != nil { // at the same time: give the lock back
		m.lock.release()
	}
	return m.leave(err == nil), err
}

// enter locks m for o and returns a nil w if that is possible at once. It
// returns an error if m is closed, or if try is set and another goroutine that
// has o waits. Otherwise it adds the caller to the queue of o, and returns its
// waiter.
func (m *FileRMutex) enter(o Owner, try bool) (q *queue, w *waiter, isNew bool, err error) {
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	q = r.waits[o]
	switch {
	case m.closed:
		return nil, nil, false, pathError(exclusive.op(), m.path, fs.ErrClosed)
	case r.owner == o:
		r.depth++
		m.depth++
		return nil, nil, m.depth == 1, nil
	case q != nil && try:
		return nil, nil, false, ErrLocked
	case q == nil && r.owner == Owner{} && r.m.lockNow(exclusive):
		r.owner, r.depth = o, 1
		m.depth++
		return nil, nil, true, nil
	}
	w = &waiter{mode: exclusive, try: try}
	m.waiting++
	if q == nil {
		q = new(queue)
		r.waits[o] = q
	}
	q.add(w)
	if q.first == w {
		q.lead()
	}
	return q, w, false, nil
}

// finish ends the lead of w, which locked the file for o or failed with err.
// After success, all waiters of o hold the lock. After an error, the next one
// leads.
func (m *FileRMutex) finish(o Owner, w *waiter, err error) (isNew bool, _ error) {
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.waits[o]
	q.remove(w, removed)
	if err == nil {
		r.owner, r.depth = o, 1
		for q.first != nil {
			r.depth++
			q.grant(q.first)
		}
	}
	if q.empty() {
		delete(r.waits, o)
	} else {
		q.lead()
	}
	m.waiting--
	if err == nil {
		m.depth++
	}
	return err == nil && m.depth == 1, atPath(m.path, err)
}

// leave ends a wait through m. It reports whether the caller now holds m and
// did not hold it before.
func (m *FileRMutex) leave(holds bool) (isNew bool) {
	m.lock.mu.Lock()
	defer m.lock.mu.Unlock()
	m.waiting--
	if holds {
		m.depth++
	}
	return holds && m.depth == 1
}

// release undoes one hold of the owner. It does not wait for a file system that
// does not answer.
func (r *reentrant) release() {
	r.mu.Lock()
	last := r.releaseLocked()
	r.mu.Unlock()
	if last {
		offload.Briefly(r.m.Unlock)
	}
}

// releaseLocked undoes one hold of the owner and reports whether it was the
// last.
func (r *reentrant) releaseLocked() bool {
	if r.depth--; r.depth > 0 {
		return false
	}
	r.owner = Owner{}
	return true
}

// Unlock undoes one Lock call of o. The last Unlock releases the lock. Unlock
// panics, and changes nothing, if o does not hold m.
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
	last := r.releaseLocked()
	r.mu.Unlock()
	if last {
		r.m.Unlock()
	}
	if outer {
		m.trace.released(false, 1, held)
	}
}

// Depth returns how many times o holds the lock, through all objects for this
// path together. It returns 0 if o does not hold the lock. It never waits for a
// holder or a waiter.
func (m *FileRMutex) Depth(o Owner) int {
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owner != o {
		return 0
	}
	return r.depth
}

// Locker returns a [sync.Locker] whose Lock and Unlock methods call m.Lock(o)
// and m.Unlock(o). It panics if o is the zero Owner.
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

// Do locks m, calls f, and unlocks m when f returns or panics. It locks m for
// the Owner that ctx carries. If ctx carries none, Do creates a new Owner, and
// the context of f carries it. So f, and every function that f passes its
// context to, may call Do again, on this FileRMutex and on others.
//
// Do returns the error of f, or that of [FileRMutex.LockContext] if f was not
// called. As with any locks, locking several in different orders can deadlock.
// The deadlock ends when ctx is done.
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

// Close closes the lock file but does not remove it. If a goroutine holds the
// lock or waits for it through this object, Close returns an error and changes
// nothing. Other objects for the path do not matter. After Close, locking m or
// closing it again fails with an error that matches [fs.ErrClosed].
func (m *FileRMutex) Close() error {
	last, err := m.retire()
	if err != nil {
		return pathError("close", m.path, err)
	}
	if last {
		m.lock.m.file.close()
	}
	return nil
}

// retire marks m as closed. It reports whether m was the last object for its
// path.
func (m *FileRMutex) retire() (last bool, err error) {
	reentrants.mu.Lock()
	defer reentrants.mu.Unlock()
	r := m.lock
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case m.closed:
		return false, fs.ErrClosed
	case m.depth > 0 || m.waiting > 0:
		return false, errInUse
	}
	if last = r.refs == 1; last {
		if err := r.m.retire(); err != nil {
			return false, err
		}
		delete(reentrants.byKey, r.key)
	}
	r.refs--
	m.closed = true
	return last, nil
}
