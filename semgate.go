package interlock

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// A semGate is the open gate file of a semaphore. It holds the size, as text, and three
// locks, which do not disturb each other:
//
//	use      (of the embedded handle) shared, by everybody for as long as they have the
//	         semaphore open; exclusive, for as long as it takes to change the size
//	waiting  shared, by a head of the queue: the mark that somebody waits
//	collect  exclusive, by who collects several units in passing; shared, by who looks whether
//	         there is one
//
// Who may only read the file cannot change the size, nor, on Linux where the file system is not known to be local,
// take the collect lock. Who may write to it can do so at any time, since the use lock binds only those who ask for it.
type semGate struct {
	*lockFile
	waiting, collect handle
}

// openSemGate opens the gate file at path, and makes size the semaphore's size, or sees to it that it is.
// If it cannot because of what others are about to do, it tries again, so often.
func openSemGate(path string, size int64, perm fs.FileMode, misses int) (*semGate, error) {
	// Who holds the use lock may be about to give it up since it wants still another size. So
	// one miss proves nothing.
	const sizeMisses = 5
	pause := 100 * time.Microsecond
	begin := time.Now()
	for miss := 1; ; miss++ {
		g, err := tryOpenSemGate(path, size, perm)
		if err == nil {
			return g, nil
		}
		_, isSize := err.(*sizeError)
		passes := err == ErrLocked || err == errStale || leased(err) && time.Since(begin) < leasePatience
		if isSize && miss >= sizeMisses || !isSize && (!passes || miss >= misses) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		time.Sleep(jitter(pause))
		pause = min(2*pause, 10*time.Millisecond)
	}
}

func tryOpenSemGate(path string, size int64, perm fs.FileMode) (*semGate, error) {
	f, err := openLockFile(path, perm)
	if err != nil {
		return nil, err
	}
	g := &semGate{lockFile: f}
	f.handle, g.waiting, g.collect, err = f.roles(path, perm)
	if err != nil {
		f.handle.close()
		return nil, err
	}
	if err = g.use(size); err == nil {
		err = f.current(clock())
	}
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// use takes the use lock, if the size is the given one or nobody minds that it becomes so. After an
// error, it may have it too.
func (g *semGate) use(size int64) error {
	if g.writable {
		err := g.tryGate(exclusive)
		if err == nil {
			return g.setSize(size)
		}
		if err != ErrLocked {
			return err
		}
	}
	if err := g.tryGate(shared); err != nil {
		return err
	}
	is, err := g.readSize()
	if err == nil && is != size {
		err = &sizeError{is, size}
	}
	return err
}

// setSize turns an exclusive use lock to a shared one, with the size set. It writes over nothing but
// a size and what can be left of one: who may write to the directory can have put any file here.
func (g *semGate) setSize(size int64) error {
	is, err := g.readSize()
	if err != nil {
		return err
	}
	if is != size {
		id, err := g.identity()
		if err != nil {
			return err
		}
		if id.links > 1 {
			return errLinked
		}
		// Of a fixed length, so that it needs no more room than there was for the one before.
		if err := g.writeAt(fmt.Appendf(nil, "%-*d\n", sizeLen-1, size)); err != nil {
			return err
		}
	}
	return g.shareGate()
}

// sizeLen is the length of a size in the file, with a newline.
const sizeLen = 20

// noSize is a size that no semaphore has: there was a crash before there was a size, or a power failure since.
const noSize = -1

var (
	errNotSize = errors.New("contains something else than a semaphore's size")
	errLinked  = errors.New("has other names (hard links), under which a semaphore's size would be written to it too")
)

// readSize returns the size that is in the file, noSize if there is only what can be left of one, or errNotSize.
func (g *semGate) readSize() (int64, error) {
	buf := make([]byte, sizeLen+1)
	n, err := g.readAt(buf)
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

type sizeError struct{ is, want int64 }

func (e *sizeError) Error() string {
	if e.is == noSize {
		return fmt.Sprintf("semaphore of size %d: the file says nothing of a size", e.want)
	}
	return fmt.Sprintf("semaphore of size %d is in use, cannot be one of size %d", e.is, e.want)
}

// close gives up all locks.
func (g *semGate) close() {
	g.waiting.closeRole()
	g.collect.closeRole()
	g.handle.closeGate()
}
