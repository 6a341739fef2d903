package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// A FileSemaphore is a weighted semaphore between processes. Of its size, any number of units can be
// acquired at once, by goroutines in any process that has a FileSemaphore of that name, and never
// more than the size are in use by all of them together. In everything else it behaves
// like [semaphore.Weighted], over the whole machine:
//
//   - Who acquires several units gets all of them or none.
//   - Units belong to nobody in particular: any goroutine of a process can release what the
//     process has acquired by this FileSemaphore.
//   - Waiters are served first come, first served, and who waits for many units is not
//     overtaken by those who need few. Between processes, it is the first waiters of
//     each that queue; and for up to 50µs, and while the one who is the first now is still on its
//     way, a newcomer can slip in.
//
// A FileSemaphore is made by [NewFileSemaphore] and must not be copied. Its methods may be called
// by several goroutines at once.
//
// # Waiting
//
// On Linux, the first waiter of the machine sleeps until a unit is released or its
// holder dies, and all others sleep in the queue behind it, one thread for each
// process. The first in line stops others from passing even while its process is
// stopped (SIGSTOP). Other programs that give up a slot file's lock without closing it are noticed
// within 100ms, as is a gate file that was replaced. For all that, a FileSemaphore that has been the first in line keeps two
// descriptors until Close, and one that has woken another process keeps a second one of each slot file, unless there are too many.
//
// # Crashes
//
// The operating system holds the units. When a process ends, in whatever way, the units it had
// and its place in the queue are free at once.
//
// # The files
//
// A semaphore of the name "dir/gpu" and size 4 uses the files
//
//	dir/gpu.00.lock … dir/gpu.03.lock  a flock(2) lock on each is one unit in use
//	dir/gpu.gate.lock                  the size, as text; who uses the semaphore; who waits; who counts
//	dir/gpu.queue.lock                 whose turn it is to wait for a unit: a [FileRWMutex]
//
// and, on other than Linux and Windows systems, two more with names that begin with that of the gate. They are
// created when first needed and nobody removes them. If they are removed, renamed or replaced by
// others, whoever has acquired units keeps them, on the old files, and everybody
// moves on to the files that are at the paths now. Of these, too, at most as many as the size
// can be in use.
//
// The slot files are those of BoundedSemaphore in Python's portalocker, which can share the limit, but
// does not queue. To share it fairly is up to those who do.
//
// # The memory model
//
// In the terminology of [the Go memory model], for goroutines of one process, a call to Release
// “synchronizes before” the return of an Acquire or TryAcquire that needs the units it released.
//
// [the Go memory model]: https://go.dev/ref/mem
type FileSemaphore struct {
	name   string
	abs    string // what the paths begin with
	size   int64
	opts   options
	trace  *tracer      // or nil
	local  bool         // the files are on a file system that answers at once
	device uint64       // which file system that is
	queue  *FileRWMutex // held by the head, see below

	// mu guards what follows, where local is set; then it is held across system calls, but
	// never while waiting. Elsewhere it is turn that does, since who waits for it must be able to give up.
	mu   sync.Mutex
	turn *semaphore.Weighted

	closed  bool
	used    int64   // units that callers have
	held    []*slot // what is locked: first for the head, so many as it has got, then for callers, the last to be released next
	idle    []*slot // the others, those that are most likely free last
	head    *place  // the head, if it is of this process
	marked  bool    // gate's waiting mark is set
	gate    *semGate
	checked time.Duration // when gate was last seen at its path and with nobody foreign waiting
	watcher *watcher      // nil unless the head waits by it
	alarm   *alarm        // for the next head, or nil

	line line
}

// NewFileSemaphore returns a FileSemaphore of the given size, which is in use by nobody here. The
// name is the path that the names of its files begin with; a relative one is resolved now.
//
// A semaphore has one size. If somebody has it open with another one, in this
// process or elsewhere, the error names both. If nobody has, the new size holds. It is written to the gate file, but
// never over anything else than a size, or what a crash has left of one, nor to a file that has other names (hard
// links). NewFileSemaphore does not wait for those who wait for units.
//
// Whoever may write to the gate file can have two sizes in use at once, by writing another one there. To take part, other
// users need not, see [WithPerm].
//
// The error is an [*fs.PathError]. Among others it is returned if the size is negative (it matches
// [fs.ErrInvalid]), or one of the files is not a regular one, can be opened neither for writing nor
// for reading, or cannot be created, or if the gate file contains something else than a size. The slot files
// are opened when first needed.
func NewFileSemaphore(name string, size int64, opts ...Option) (*FileSemaphore, error) {
	fail := func(err error) (*FileSemaphore, error) {
		return nil, pathError(context.Background(), "open", name, err)
	}
	o, err := newOptions(opts)
	if err != nil {
		return fail(err)
	}
	if size < 0 {
		return fail(fmt.Errorf("semaphore of size %d: %w", size, fs.ErrInvalid))
	}
	abs, err := absolute(name)
	if err != nil {
		return fail(err)
	}
	s := &FileSemaphore{name: name, abs: abs, size: size, opts: o, trace: newTracer(o.trace, name), turn: semaphore.NewWeighted(1), checked: never}
	for k := range min(size, 100) { // the rest when they are needed
		if err := checkFile(s.slotPath(k)); err != nil {
			return fail(&fs.PathError{Op: "open", Path: s.slotPath(k), Err: err})
		}
	}
	if s.gate, err = openSemGate(abs+".gate.lock", size, o.perm, 1000); err != nil {
		return fail(err)
	}
	if s.queue, err = NewFileRWMutex(abs+".queue.lock", untraced(opts)...); err != nil {
		s.gate.close()
		return fail(err)
	}
	s.local, s.device = s.gate.local, s.gate.device()
	return s, nil
}

// Size returns the size that the FileSemaphore was made with.
func (s *FileSemaphore) Size() int64 { return s.size }

// Acquire acquires n units, and waits until it can or ctx ends. If ctx ends first, and also if
// it has ended already, the error is ctx.Err() and no unit is acquired. Nothing of the wait
// remains, unless the file system does not answer: then what it still owes an answer is undone
// when that comes. Other errors are an [*fs.PathError]: they match [errors.ErrUnsupported] if a file
// cannot be locked, and [fs.ErrClosed] if s is closed.
//
// Who wants more than the size waits until ctx ends, and holds up nobody. To acquire 0 units, too,
// takes waiting in line. Acquire panics if n is negative.
func (s *FileSemaphore) Acquire(ctx context.Context, n int64) error {
	if n < 0 {
		panic("interlock: FileSemaphore.Acquire of a negative number of units")
	}
	if s.trace == nil {
		return s.wrap(ctx, s.acquire(ctx, n))
	}
	return s.wrap(ctx, s.trace.acquire(false, n, true, func(wait bool) error {
		if wait {
			return s.acquire(ctx, n)
		}
		return s.acquireNow(ctx, n)
	}))
}

// acquireNow is Acquire without waiting: otherwise ErrLocked.
func (s *FileSemaphore) acquireNow(ctx context.Context, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.exclusively(ctx, func() error { return s.pass(n) }, func(err error) {
		if err == nil {
			s.release(n)
		}
	})
	switch err {
	case errAbandoned:
		return ctx.Err()
	case errCollecting:
		return ErrLocked
	}
	return err
}

func (s *FileSemaphore) acquire(ctx context.Context, n int64) error {
	if !s.local {
		return s.acquireRemote(ctx, n)
	}
	// Done contexts fail even if there are units, as in semaphore.Weighted.
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	err := s.pass(n)
	// Who only collects may be done in a moment; but no longer than others may be overlooked anyway. In line, one
	// does not need the collect lock, but is seen to wait, and so keeps out others.
	for times := 0; err == errCollecting && times < 20; times++ {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
		if err = ctx.Err(); err == nil {
			err = s.pass(n)
		}
	}
	if err != ErrLocked && err != errCollecting {
		s.mu.Unlock()
		return err
	}
	if n > s.size {
		s.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	p := s.line.join(n)
	s.mu.Unlock()
	return s.waitInLine(ctx, p)
}

// acquireRemote is Acquire where the file system may not answer.
func (s *FileSemaphore) acquireRemote(ctx context.Context, n int64) error {
	var p *place
	err := s.exclusively(ctx, func() error {
		err := ctx.Err()
		if err == nil {
			err = s.pass(n)
		}
		if (err == ErrLocked || err == errCollecting) && n <= s.size {
			p = s.line.join(n)
			return ErrLocked
		}
		return err
	}, func(err error) {
		if err == nil {
			s.release(n)
		} else if p != nil {
			s.line.giveUp(p)
		}
	})
	switch {
	case err == errAbandoned:
		return ctx.Err()
	case p != nil:
		return s.waitInLine(ctx, p)
	case err == ErrLocked || err == errCollecting:
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

// TryAcquire tries to acquire n units and reports whether it succeeded. It fails if there are
// not enough, and if anybody waits for units, in any process.
//
// For up to 50µs it may overlook who waits in another process. It counts by looking at one slot after the other,
// so it may fail if others acquire and release units meanwhile, although there are enough at any time. Others who
// count it lets finish. If one of them is stopped just then, it fails after less than 100ms; and where
// the file system is not known to be local (see the package comment), it does not know of those who may only read the gate file.
//
// It panics if n is negative, if s is closed, and with an [*fs.PathError] in the rare case that the system
// refuses: also if the directory was removed or renamed, so that the files cannot be created anew.
// Like Release and Close, it waits for a file system that does not answer.
func (s *FileSemaphore) TryAcquire(n int64) bool {
	if n < 0 {
		panic("interlock: FileSemaphore.TryAcquire of a negative number of units")
	}
	var err error
	if s.trace == nil {
		err = s.tryAcquire(n)
	} else {
		err = s.trace.acquire(false, n, false, func(bool) error { return s.tryAcquire(n) })
	}
	if err != nil && err != ErrLocked {
		panic(s.wrap(context.Background(), err))
	}
	return err == nil
}

// tryAcquire returns ErrLocked if the units are not to be had.
func (s *FileSemaphore) tryAcquire(n int64) error {
	// To take or leave what one collects takes microseconds; but whoever does so may lose its processor meanwhile, or be
	// stopped. How long to look again is not measured by the clock, since one may lose one's own.
	const quick, slow = 100, 60
	for times := 1; ; times++ {
		s.lock()
		err := s.pass(n)
		s.unlock()
		switch {
		case err != errCollecting:
			return err
		case times <= quick:
			runtime.Gosched()
		case times <= quick+slow:
			time.Sleep(jitter(time.Millisecond))
		default:
			return ErrLocked
		}
	}
}

// Release releases n units. It panics, and changes nothing, if n is negative or more than what
// was acquired by this FileSemaphore.
func (s *FileSemaphore) Release(n int64) {
	if n < 0 {
		panic("interlock: FileSemaphore.Release of a negative number of units")
	}
	s.lock()
	if n > s.used {
		s.unlock()
		panic("interlock: FileSemaphore.Release of more than held: " + s.name)
	}
	held := s.trace.end(n)
	s.release(n)
	s.unlock()
	s.trace.released(false, n, held)
}

// Close closes the files, without removing them. It is an error, and changes nothing, to close an
// s of which units are in use, or waited for, unless in vain, for more than the size. After Close, Acquire fails with an error that
// matches [fs.ErrClosed], and so does Close.
func (s *FileSemaphore) Close() error {
	s.lock()
	defer s.unlock()
	err := fs.ErrClosed
	if !s.closed {
		err = errInUse
		if s.used == 0 && s.line.empty() {
			err = s.queue.Close()
		}
	}
	if err != nil {
		return &fs.PathError{Op: "close", Path: s.name, Err: err}
	}
	s.closed = true
	s.closeIdle()
	s.gate.close()
	if s.watcher != nil {
		s.watcher.close()
	}
	return nil
}

func (s *FileSemaphore) wrap(ctx context.Context, err error) error {
	return pathError(ctx, "acquire", s.name, err)
}

// lock takes mu or turn, to be given back by unlock.
func (s *FileSemaphore) lock() {
	if s.local {
		s.mu.Lock()
	} else {
		s.turn.Acquire(context.Background(), 1)
	}
}

func (s *FileSemaphore) unlock() {
	if s.local {
		s.mu.Unlock()
	} else {
		s.turn.Release(1)
	}
}

// exclusively makes a call that needs mu or turn, and returns its error. Where the file
// system may not answer, it may also be ctx.Err(), and the call was not made, or errAbandoned: then abandoned will run,
// with the call's error, when the answer comes.
func (s *FileSemaphore) exclusively(ctx context.Context, call func() error, abandoned func(err error)) error {
	if s.local {
		s.mu.Lock()
		defer s.mu.Unlock()
		return call()
	}
	if s.turn.Acquire(ctx, 1) != nil {
		return ctx.Err()
	}
	var result error
	made := false
	err := callFS(ctx, s.device, func() error {
		made = true
		result = call()
		return result
	}, func() {
		abandoned(result)
		s.turn.Release(1)
	})
	if err == errAbandoned {
		return err
	}
	s.turn.Release(1)
	if made {
		return result
	}
	return err
}

// errCollecting: not enough is free, but somebody may be about to give back what it has
// collected in vain.
var errCollecting = errors.New("interlock: units are being collected")

// pass acquires n units if nobody waits and there are enough. Otherwise the error is
// ErrLocked or errCollecting.
func (s *FileSemaphore) pass(n int64) error {
	if s.closed {
		return fs.ErrClosed
	}
	if !s.line.empty() || n > s.size-s.used {
		return ErrLocked
	}
	now := clock()
	if now-s.checked >= checkInterval {
		if err := s.checkGate(now); err != nil {
			return err
		}
		if s.gate.waiting.gateTaken(exclusive) {
			return ErrLocked
		}
		s.checked = now
	}
	if n > 1 {
		err := s.gate.collect.tryGate(exclusive)
		if err == ErrLocked {
			return errCollecting
		}
		if err == nil { // or else, without the right to, we do without
			defer s.leaveRole(&s.gate.collect)
		}
	}
	got, err := s.take(n, now)
	if n == 1 && got == 0 && err == nil {
		// Perhaps somebody has it who collects, and in vain: look once more while nobody does.
		switch s.gate.collect.tryGate(shared) {
		case ErrLocked:
			return errCollecting
		case nil:
			got, err = s.take(n, now)
			s.leaveRole(&s.gate.collect)
		}
	}
	if got == n {
		s.used += n
		return nil
	}
	s.putBack(got, err)
	if err == nil {
		err = ErrLocked
	}
	return err
}

// checkGate opens the gate anew if the file is not the one at its path any more. ErrLocked means that
// this is not possible now.
func (s *FileSemaphore) checkGate(now time.Duration) error {
	err := s.gate.current(now)
	if err != errStale {
		return err
	}
	return s.renewGate()
}

// leaveRole gives up a lock of the gate, and reports whether it could.
func (s *FileSemaphore) leaveRole(role *handle) bool {
	return role.leaveGate() == nil || s.renewGate() == nil // which gives it up by closing the old gate
}

func (s *FileSemaphore) renewGate() error {
	gate, err := openSemGate(s.gate.path, s.size, s.opts.perm, 1)
	if errors.Is(err, ErrLocked) || errors.Is(err, errStale) {
		return ErrLocked
	}
	if err != nil {
		return err
	}
	s.gate.close()
	s.gate, s.marked = gate, false
	return nil
}
