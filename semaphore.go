package interlock

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/closewatch"
)

// A FileSemaphore is a weighted semaphore between processes, like
// [golang.org/x/sync/semaphore.Weighted] for the whole machine. Goroutines of
// any process that has a FileSemaphore with the same name can acquire its
// units. All processes together never have more units in use than the size.
//
// A FileSemaphore is created by [NewFileSemaphore] and must not be copied. Its
// methods are safe for concurrent use.
//
//   - Acquire is all-or-nothing: a call never holds part of what it asked for.
//   - Any goroutine of a process can release units that the process acquired
//     through this FileSemaphore.
//   - Waiters are served in the order in which they arrive. A call for many
//     units is not overtaken by calls for few. Between processes, the order is
//     approximate.
//
// The operating system holds the units, and releases them when the process
// ends. On Linux, waiters sleep in the kernel; on other systems they poll.
//
// A semaphore named "dir/gpu" of size 4 uses a slot file for each unit, and at
// least two more files. They are created when needed and never removed:
//
//	dir/gpu.00.lock … dir/gpu.03.lock  the slot files; a flock(2) lock on one is a unit in use
//	dir/gpu.gate.lock                  the size, as text, and the mark of a waiter
//	dir/gpu.queue.lock                 the lock of the process that is next in line
//
// BoundedSemaphore of Python's portalocker uses the same slot files. It can
// share the limit, but does not queue. Limits and rare cases are described in
// docs/guarantees.md.
//
// In the terminology of [the Go memory model], for goroutines of one process, a
// call to Release “synchronizes before” the return of an Acquire or TryAcquire
// that needs the units it released.
//
// [the Go memory model]: https://go.dev/ref/mem
type FileSemaphore struct {
	name  string
	abs   string // the paths of the files begin with it
	size  int64
	opts  options
	trace *tracer // or nil

	// Only the leader uses these; see semaphore_queue.go.
	turn       *lockFile // the lock file for the turn
	hasTurn    bool
	marked     bool    // the gate's waiting mark is set
	slots      int64   // number of slots that were tried so far
	untried    []*slot // during a scan
	failed     []*slot // during a scan
	watcher    *closewatch.Watcher
	newWatches bool // the watcher has been given a new slot
	slotClosed bool // a slot's file was closed before the last scan

	// mu guards the fields below. It is not held during calls that can take
	// long.
	mu        sync.Mutex
	closed    bool
	freeing   int     // number of releases that are still unlocking slots
	held      []*slot // of the callers; the last is released next
	idle      []*slot // not held by this process; the last is tried next
	queue     queue
	collected []*slot           // slots that the leader has so far
	asHead    bool              // the leader is the head of the machine's queue
	waker     *closewatch.Waker // wakes the head; or nil
	gate      *semGate          // changed by the leader only
	clear     time.Duration     // when the gate was last seen at its path, with no process waiting
}

// NewFileSemaphore returns a FileSemaphore of the given size. The paths of its
// files begin with name. A relative name is resolved now.
//
// A semaphore has one size. If any process has it open with another size, the
// error names both. If no process has it open, the new size takes effect. The
// size is written to the gate file. NewFileSemaphore overwrites nothing there
// but a size, or what a crash left of one.
//
// The error is an [*fs.PathError]. Among other cases, NewFileSemaphore fails if
// the size is negative (the error matches [fs.ErrInvalid]), or if a file other
// than the slot files can be neither opened nor created. It also fails if one
// of these files, or of the first 100 slot files, is not a regular file. Slot
// files are opened when they are first needed.
func NewFileSemaphore(name string, size int64, opts ...Option) (*FileSemaphore, error) {
	fail := func(err error) (*FileSemaphore, error) { return nil, pathError("open", name, err) }
	o, err := newOptions(opts)
	if err != nil {
		return fail(err)
	}
	if size < 0 {
		return fail(fmt.Errorf("semaphore of size %d: %w", size, fs.ErrInvalid))
	}
	abs, err := atpath.Absolute(name)
	if err != nil {
		return nil, errorAt("open", name, err)
	}
	s := &FileSemaphore{name: name, abs: abs, size: size, opts: o, trace: newTracer(o.trace, name), clear: never}
	for k := range min(size, 100) { // the rest are checked when they are opened
		if err := checkFile(s.slotPath(k)); err != nil {
			return fail(pathError("open", s.slotPath(k), err))
		}
	}
	// WithWholeFile is for the slots only.
	o.wholeFile = false
	if s.gate, err = openSemGate(abs+".gate.lock", size, o, 1000); err != nil {
		return fail(err)
	}
	turn := abs + ".queue.lock"
	if s.turn, err = openLockFile(turn, turn, o, true); err != nil {
		s.gate.close()
		return fail(err)
	}
	return s, nil
}

// Size returns the size that was passed to [NewFileSemaphore].
func (s *FileSemaphore) Size() int64 { return s.size }

// Acquire acquires n units. It blocks until they are available or ctx is done.
// If ctx is done, even before the call, Acquire returns ctx.Err() and acquires
// nothing. Any other error is an [*fs.PathError]. It matches [fs.ErrClosed] if
// s is closed, and [errors.ErrUnsupported] if the file system has no locks.
//
// A call for more units than the size blocks until ctx is done, and delays no
// other call. A call for 0 units waits in line, too. Acquire panics if n is
// negative.
func (s *FileSemaphore) Acquire(ctx context.Context, n int64) error {
	if n < 0 {
		panic("interlock: FileSemaphore.Acquire of a negative number of units")
	}
	if s.trace == nil {
		return s.acquire(ctx, n, false)
	}
	return s.trace.acquire(false, n, false, func(try bool) (bool, error) {
		return true, s.acquire(ctx, n, try)
	})
}

// TryAcquire tries to acquire n units and reports whether it succeeded. It
// fails if not enough units are free, or if any process waits for units. It
// counts free units by looking at one slot after the other, so it may also fail
// while others acquire and release units.
//
// TryAcquire panics if n is negative. It panics with an [*fs.PathError] if s is
// closed, or in the rare case that the system refuses the lock.
func (s *FileSemaphore) TryAcquire(n int64) bool {
	if n < 0 {
		panic("interlock: FileSemaphore.TryAcquire of a negative number of units")
	}
	ctx := context.Background()
	if s.trace == nil {
		return mustLock(s.acquire(ctx, n, true))
	}
	return mustLock(s.trace.acquire(false, n, true, func(bool) (bool, error) {
		return true, s.acquire(ctx, n, true)
	}))
}

// acquire acquires n units. If try is set, it returns ErrLocked instead of
// waiting for a holder.
func (s *FileSemaphore) acquire(ctx context.Context, n int64, try bool) error {
	// As in semaphore.Weighted, fail if ctx is done, even if units are
	// free.
	if err := ctx.Err(); err != nil {
		return err
	}
	if n == 1 && s.acquireNow() {
		return nil
	}
	w, err := s.enter(n, try)
	if err == ErrLocked && !try { // n is more than the size
		<-ctx.Done()
		return ctx.Err()
	}
	if w == nil {
		return err
	}
	state := s.queue.await(&s.mu, ctx.Done(), w)
	if state == leading {
		return s.lead(ctx, w)
	}
	err = ctx.Err()
	if state == refused {
		err = cmp.Or(err, ErrLocked)
	}
	return err
}

// acquireNow acquires one unit if it can do so at once, and reports whether it
// did. It is the uncontended path, and allocates nothing.
func (s *FileSemaphore) acquireNow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if s.closed || !s.queue.empty() || last < 0 || s.idle[last].needSpare || !s.clearNowLocked() {
		return false
	}
	sl := s.idle[last]
	if !sl.file.tryNow(exclusive) {
		return false
	}
	s.idle = s.idle[:last]
	s.held = append(s.held, sl)
	return true
}

// clearNowLocked reports whether the gate is at its path and no process waits.
// It reports false if it cannot tell at once.
func (s *FileSemaphore) clearNowLocked() bool {
	now := clock()
	if now-s.clear < checkInterval {
		return true
	}
	if !s.gate.currentNow() || s.gateWaitingLocked() {
		return false
	}
	s.clear = now
	return true
}

// enter adds the caller to the queue, and returns its waiter. The error is
// ErrLocked if n is more than the size, or if try is set and the caller would
// have to wait for another goroutine.
func (s *FileSemaphore) enter(n int64, try bool) (*waiter, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, pathError("acquire", s.name, fs.ErrClosed)
	case n > s.size, try && (s.queue.blocked() || n > s.size-int64(len(s.held))):
		return nil, ErrLocked
	}
	w := &waiter{mode: exclusive, units: n, try: try}
	s.queue.add(w)
	if s.queue.first == w {
		s.queue.lead()
	}
	return w, nil
}

// Release releases n units. It panics, and changes nothing, if n is negative or
// more than the units that were acquired through s and not yet released.
func (s *FileSemaphore) Release(n int64) {
	if n < 0 {
		panic("interlock: FileSemaphore.Release of a negative number of units")
	}
	s.mu.Lock()
	if n > int64(len(s.held)) {
		s.mu.Unlock()
		panic("interlock: FileSemaphore.Release of more units than were acquired: " + s.name)
	}
	held := s.trace.end(n)
	slots, unlocked := s.releaseLocked(n)
	s.mu.Unlock()
	s.finishRelease(slots, unlocked)
	s.trace.released(false, n, held)
}

// release is Release for units that their caller no longer wants.
func (s *FileSemaphore) release(n int64) {
	s.mu.Lock()
	slots, unlocked := s.releaseLocked(n)
	s.mu.Unlock()
	s.finishRelease(slots, unlocked)
}

// finishRelease does what releaseLocked left to be done without the mutex.
func (s *FileSemaphore) finishRelease(slots []*slot, unlocked bool) {
	if len(slots) == 0 {
		return
	}
	if unlocked {
		s.tellFree(slots)
	} else {
		s.free(slots)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freeing--
}

// releaseLocked takes n units from the callers of this process. In the
// uncontended case, it does everything itself. Otherwise it returns slots for
// finishRelease. If they are already unlocked, only the waiters must be told.
func (s *FileSemaphore) releaseLocked(n int64) (slots []*slot, unlocked bool) {
	rest := len(s.held) - int(n)
	if n == 1 && !s.asHead {
		sl := s.held[rest]
		if sl.file.unlockNow() {
			s.held = s.held[:rest]
			// Look after the unlock, or a process that begins to
			// wait could miss it.
			if s.gateWaitingLocked() {
				s.freeing++
				return []*slot{sl}, true
			}
			s.idle = append(s.idle, sl)
			return nil, true
		}
	}
	slots = slices.Clone(s.held[rest:])
	s.held = s.held[:rest]
	if n > 0 {
		s.freeing++
	}
	return slots, false
}

// Close closes the files but does not remove them. If units are in use, or if a
// goroutine waits for units (other than for more than the size), Close returns
// an error and changes nothing. After Close, acquiring units or closing s again
// fails with an error that matches [fs.ErrClosed].
func (s *FileSemaphore) Close() error {
	if err := s.retire(); err != nil {
		return pathError("close", s.name, err)
	}
	s.closeIdle()
	s.gate.close()
	s.turn.close()
	if s.watcher != nil {
		s.watcher.Close()
	}
	return nil
}

// retire marks s as closed.
func (s *FileSemaphore) retire() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return fs.ErrClosed
	case len(s.held) > 0 || s.freeing > 0 || !s.queue.empty():
		return errInUse
	}
	s.closed = true
	return nil
}
