package interlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/offload"
)

// A semGate is the open gate file of a semaphore. It holds the size, as text,
// and three side locks, which are independent of each other:
//
//	use      shared, by every process for as long as it has the semaphore open;
//	         exclusive, by a process while it changes the size
//	waiting  shared, by the process whose waiter is the head of the machine's queue
//	collect  exclusive, by a process that acquires several units without waiting;
//	         shared, by a process that looks whether one unit is free
//
// A process that can only read the file cannot change the size. On Linux, if
// the file system is not known to be local, it cannot acquire the collect lock
// exclusively either. A process that can write to the file can change the size
// at any time, because locks are advisory.
type semGate struct {
	*lockFile
	use, waiting, collect sideLock
}

// openSemGate opens the gate file at path. It sets the size of the semaphore,
// or checks that the semaphore has that size. If other processes are briefly in
// the way, it tries again, up to the given number of tries.
func openSemGate(path string, size int64, o options, tries int) (*semGate, error) {
	// A process that holds the use lock may be about to release it, because
	// it, too, needs another size. So a single mismatch proves nothing.
	const sizeTries = 5
	pause := 100 * time.Microsecond
	for try := 1; ; try++ {
		g, err := tryOpenSemGate(path, size, o)
		if err == nil {
			return g, nil
		}
		_, isSize := err.(*sizeError)
		passes := err == ErrLocked || err == errStale
		if isSize && try >= sizeTries || !isSize && (!passes || try >= tries) {
			if err == errStale {
				err = atpath.ErrUnstable
			}
			return nil, pathError("open", path, err)
		}
		time.Sleep(jitter(pause))
		pause = min(2*pause, 10*time.Millisecond)
	}
}

func tryOpenSemGate(path string, size int64, o options) (*semGate, error) {
	f, err := openLockFile(path, path, o, false)
	if err != nil {
		return nil, err
	}
	g := &semGate{lockFile: f}
	if err = g.openSideLocks(); err != nil {
		f.file.close()
		return nil, err
	}
	if err = g.acquireUse(size); err == nil {
		err = f.look(f.file)
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// openSideLocks sets the side locks. Where the system has byte locks, they are
// the bytes after the one for a gate. Elsewhere they are files of their own.
func (g *semGate) openSideLocks() error {
	s := g.file
	if byteLocks {
		g.use, g.waiting, g.collect = sideLock{s, farByte + 1}, sideLock{s, farByte + 2}, sideLock{s, farByte + 3}
		// An exclusive flock(2) lock does not require the right to
		// write. Do not look at s.local: on overlayfs, it is not the
		// same for all processes that have the file open.
		if s.knownFS {
			g.collect.at = wholeFile
		}
		return nil
	}
	waiting, err := openFile(g.path+".waiting", true, g.opts.perm)
	if err != nil {
		return err
	}
	collect, err := openFile(g.path+".collect", true, g.opts.perm)
	if err != nil {
		waiting.close()
		return err
	}
	g.use, g.waiting, g.collect = sideLock{s, wholeFile}, sideLock{waiting, wholeFile}, sideLock{collect, wholeFile}
	return nil
}

// acquireUse acquires the use lock if size is the size of the semaphore. If no
// process has the semaphore open, it sets the size if possible. After an error,
// it may hold the lock all the same.
func (g *semGate) acquireUse(size int64) error {
	if g.file.writable {
		err := g.use.try(exclusive)
		if err == nil {
			return g.setSize(size)
		}
		if err != ErrLocked {
			return err
		}
	}
	if err := g.use.try(shared); err != nil {
		return err
	}
	is, err := g.readSize()
	if err == nil && is != size {
		err = &sizeError{is, size}
	}
	return err
}

// setSize sets the size, and makes the exclusive use lock shared. It overwrites
// nothing but a size, or what a crash can have left of one, because other users
// may have put any file here.
func (g *semGate) setSize(size int64) error {
	is, err := g.readSize()
	if err != nil {
		return err
	}
	if is != size {
		id, err := g.file.identity()
		if err != nil {
			return err
		}
		if id.links > 1 {
			return errLinked
		}
		// The length is fixed, so a new size needs no more room than
		// the old one.
		if err := g.file.writeStart(fmt.Appendf(nil, "%-*d\n", sizeLen-1, size)); err != nil {
			return err
		}
	}
	return g.use.share()
}

// sizeLen is the length of a size in the file, including a newline.
const sizeLen = 20

// noSize is a size that no semaphore has. The file contains no size because a
// process crashed before it wrote one, or because the power failed soon after.
const noSize = -1

var (
	errNotSize = errors.New("does not contain the size of a semaphore")
	errLinked  = errors.New("has other names (hard links), so no size is written to it")
)

// readSize returns the size that is in the file. If there is at most a part of
// a size, it returns noSize; if there is anything else, errNotSize.
func (g *semGate) readSize() (int64, error) {
	buf := make([]byte, sizeLen+1)
	n, err := g.file.readStart(buf)
	if err != nil {
		return noSize, err
	}
	if n > sizeLen || len(bytes.Trim(buf[:n], "0123456789 \n\x00")) > 0 {
		return noSize, errNotSize
	}
	size, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 64)
	if err != nil {
		return noSize, nil
	}
	return size, nil
}

// A sizeError reports that a semaphore is in use with another size.
type sizeError struct{ is, want int64 }

func (e *sizeError) Error() string {
	if e.is == noSize {
		return fmt.Sprintf("semaphore of size %d: the file does not contain a size", e.want)
	}
	return fmt.Sprintf("semaphore of size %d is in use with size %d", e.want, e.is)
}

// close releases all locks and closes the files.
func (g *semGate) close() {
	use, waiting, collect := g.use, g.waiting, g.collect
	g.use, g.waiting, g.collect = sideLock{}, sideLock{}, sideLock{}
	if !byteLocks && waiting.file != nil {
		offload.Briefly(func() {
			waiting.close()
			collect.close()
		})
	}
	g.closeAfter(func() { // as in release
		if byteLocks {
			waiting.unlock()
			collect.unlock()
			use.unlock()
		}
	})
}

// gateTry tries to acquire a side lock of the gate. The leader calls it.
func (s *FileSemaphore) gateTry(ctx context.Context, l sideLock, m mode) error {
	if s.gate.file == nil {
		return ErrLocked // closed; checkGate opens it again
	}
	err := s.gate.call(ctx, func() error { return l.try(m) })
	if err != nil && ctx.Err() != nil {
		s.gateUnlock(ctx, l)
	}
	return err
}

// gateUnlock releases a side lock of the gate. If that fails, it closes the
// gate, which releases all of them, and checkGate opens it again. The leader
// calls it.
func (s *FileSemaphore) gateUnlock(ctx context.Context, l sideLock) {
	g := s.gate
	if g.file == nil || l != g.waiting && l != g.collect {
		return // closed, and so released
	}
	if !g.unlockSide(ctx, l) {
		s.setClear(never)
		s.closeGate()
	}
}

// checkGate opens the gate again if its file is no longer the one at its path.
// ErrLocked means that this is not possible now. The leader calls it.
func (s *FileSemaphore) checkGate(ctx context.Context) error {
	g := s.gate
	if f := g.file; f != nil {
		err := g.ask(ctx, func() error { return g.look(f) })
		if err != errStale {
			return s.fail(ctx, err)
		}
	}
	return s.renewGate(ctx)
}

// renewGate opens the gate again.
func (s *FileSemaphore) renewGate(ctx context.Context) error {
	old := s.gate
	var g *semGate
	abandoned, err := old.opening(ctx, func() (err error) {
		g, err = openSemGate(old.path, s.size, s.opts, 1)
		return err
	}, func() {
		if g != nil {
			g.close()
		}
	})
	if abandoned {
		return err
	}
	if g == nil {
		if errors.Is(err, ErrLocked) || errors.Is(err, atpath.ErrUnstable) {
			return ErrLocked
		}
		return s.fail(ctx, err)
	}
	s.setGate(g)
	old.close()
	return s.fail(ctx, nil)
}

// setGate makes g the gate. Until then, a Release may ask the old gate.
func (s *FileSemaphore) setGate(g *semGate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate, s.marked = g, false
}

// closeGate closes the gate, and replaces it by one that is not open yet.
func (s *FileSemaphore) closeGate() {
	old := s.gate
	s.setGate(&semGate{lockFile: newLockFile(old.name, old.path, old.opts, false)})
	old.close()
}

// gateWaitingLocked reports whether the head of the machine's queue is in
// another process, and so must be woken by a release. It makes only a call that
// returns at once.
func (s *FileSemaphore) gateWaitingLocked() bool {
	return s.gate.takenNow(s.gate.waiting)
}

// fail returns ctx.Err() if ctx is done, and otherwise err as an error of s.
func (s *FileSemaphore) fail(ctx context.Context, err error) error {
	if end := ctx.Err(); end != nil {
		return end
	}
	if err == ErrLocked {
		return err
	}
	return pathError("acquire", s.name, err)
}
