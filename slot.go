package interlock

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

// A slot is a slot file.
type slot struct {
	k       int64
	file    *lockFile // nil unless open
	watched *lockFile // the file when its path was last added to the watcher
	number  int       // by which the watcher knows it then
	bell    *bell     // wakes who watches it, or nil
	rung    bool      // it should have another bell
}

// slotPath names slot files as portalocker does.
func (s *FileSemaphore) slotPath(k int64) string { return fmt.Sprintf("%s.%02d.lock", s.abs, k) }

// take locks up to n slots that are free, and returns how many.
func (s *FileSemaphore) take(n int64, now time.Duration) (got int64, err error) {
	for i := len(s.idle) - 1; i >= 0 && got < n; i-- {
		sl := s.idle[i]
		switch err := s.lockSlot(sl, now); err {
		case nil:
			s.idle = slices.Delete(s.idle, i, i+1)
			s.hold(sl)
			got++
		case ErrLocked:
		default:
			return got, err
		}
	}
	for got < n && int64(len(s.idle)+len(s.held)) < s.size {
		sl := &slot{k: int64(len(s.idle) + len(s.held))}
		switch err := s.lockSlot(sl, now); err {
		case nil:
			s.hold(sl)
			got++
		case ErrLocked:
			s.idle = slices.Insert(s.idle, 0, sl)
		default:
			sl.close()
			return got, err
		}
	}
	return got, nil
}

// hold adds a slot, which is locked, to those of the head, or else of the caller.
func (s *FileSemaphore) hold(sl *slot) {
	if p := s.head; p != nil {
		s.held = slices.Insert(s.held, 0, sl)
		p.got++
	} else {
		s.held = append(s.held, sl)
	}
}

// putBack gives up what was taken in vain, because of err or not.
func (s *FileSemaphore) putBack(n int64, err error) {
	s.free(n)
	if tooManyOpen(err) {
		s.closeIdle() // others need them more
	}
}

// tooManyOpen reports whether err says that there are too many open files.
func tooManyOpen(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// closeIdle closes what is not needed now: the slots that are not held, all bells, and the alarm.
func (s *FileSemaphore) closeIdle() {
	for _, sl := range s.idle {
		sl.close()
	}
	s.dropBells()
	s.alarm.close()
	s.alarm = nil
}

// dropBells closes all bells, and reports whether there were any. Who watches looks in vain then.
func (s *FileSemaphore) dropBells() bool {
	dropped := false
	for _, slots := range [][]*slot{s.idle, s.held} {
		for _, sl := range slots {
			dropped = dropped || sl.bell != nil
			sl.bell.ring()
			sl.bell, sl.rung = nil, false
		}
	}
	return dropped
}

func (sl *slot) close() {
	if sl.file != nil {
		sl.file.closeLock()
		sl.file = nil
	}
	sl.bell.ring()
	sl.bell = nil
}

// lockSlot locks a slot if it is free: otherwise ErrLocked. For the head it also sees to it
// that the slot is watched.
func (s *FileSemaphore) lockSlot(sl *slot, now time.Duration) error {
	for range maxReopen {
		if sl.file == nil {
			f, err := s.opts.openLock(s.slotPath(sl.k))
			if tooManyOpen(err) && s.dropBells() {
				f, err = s.opts.openLock(s.slotPath(sl.k))
			}
			if err != nil {
				return &fs.PathError{Op: "open", Path: s.slotPath(sl.k), Err: err}
			}
			sl.file = f
		}
		f := sl.file
		if s.head != nil {
			s.watch(sl)
		} else if f.local && f.acquireKnown(exclusive, now) {
			raceAcquire(f.handle)
			sl.hangBell()
			return nil
		}
		switch err := f.acquire(exclusive, false, now); err {
		case nil:
			raceAcquire(f.handle)
			sl.hangBell()
			return nil
		case errStale:
			sl.close()
		case ErrLocked:
			sl.hangBell()
			return err
		default:
			return &fs.PathError{Op: "lock", Path: f.path, Err: err}
		}
	}
	return &fs.PathError{Op: "lock", Path: s.slotPath(sl.k), Err: errStale}
}

// hangBell gives a slot another bell, if it should have one: now, and not when somebody waits to be woken.
func (sl *slot) hangBell() {
	if sl.rung {
		sl.bell, _ = newBell(sl.file)
		sl.rung = false
	}
}

// release gives back n units that callers have.
func (s *FileSemaphore) release(n int64) {
	s.used -= n
	s.free(n)
}

// free gives up n slots: to the head, if it is of this process, and else to whoever comes.
func (s *FileSemaphore) free(n int64) {
	freed := len(s.idle)
	for range n {
		sl := s.held[len(s.held)-1]
		s.held = s.held[:len(s.held)-1]
		f := sl.file
		if p := s.head; p != nil && p.got < p.need && f.current(clock()) == nil {
			s.hold(sl) // far from the next to be released, so that by and by all are looked at
			s.serve(nil)
			continue
		}
		raceRelease(f.handle)
		if !(f.local && f.unlockLocal()) && f.unlock() != nil {
			f.kill()
			sl.close()
		}
		s.idle = append(s.idle, sl)
	}
	if freed == len(s.idle) {
		return
	}
	if p := s.head; p != nil { // who does not have what was at the wrong path, but may find something
		p.rouse()
	}
	if !canWatch || !s.gate.waiting.gateTaken(exclusive) {
		return
	}
	s.checked = never
	// All of them: the head may not watch one, since its process holds a file that was at the same path before.
	for _, sl := range s.idle[freed:] {
		switch {
		case sl.file == nil:
		case sl.bell != nil:
			sl.bell.ring()
			sl.bell, sl.rung = nil, true
		default:
			bell, err := newBell(sl.file)
			if sl.rung = err == nil; tooManyOpen(err) {
				sl.close() // which wakes it as well
			}
			bell.ring()
		}
	}
}
