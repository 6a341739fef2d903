package interlock

import (
	"context"

	"github.com/interlock-go/interlock/internal/atpath"
)

// The gate of a lock file is a second lock that stops newcomers while a process
// waits. A process that has to wait for the lock first acquires the gate,
// exclusively to write and shared to read. It leaves the gate once it has the
// lock. Before a process locks the file, it asks whether the gate is taken. If
// the gate cannot be checked, it assumes that the gate is open.
//
// Where byte locks and the lock of the whole file do not see each other, the
// gate is a byte of the lock file. Elsewhere it is a sibling file. The gate is
// locked through an open file of its own: giving up a wait at the gate may mean
// closing that file, and the lock must not depend on it.

// gateSuffix is appended to the path of a lock file to form the path of its
// gate, where that is a sibling file.
const gateSuffix = ".gate"

// ownGateOf returns the gate of s, through the descriptor of s itself.
func ownGateOf(s *sysFile) sideLock { return sideLock{s, farByte} }

// gateLock returns the gate to ask about, where it is a byte of the lock file.
func (f *lockFile) gateLock() sideLock { return ownGateOf(f.file) }

// gateTaken reports whether a caller in mode m must not overtake a process that
// waits at the gate. A reader must not overtake a writer; a writer must not
// overtake any process.
func (f *lockFile) gateTaken(s *sysFile, m mode) bool {
	if s.bytesApart() {
		return ownGateOf(s).taken(m)
	}
	// A machine may remember for a minute that there was no gate file,
	// unless it creates the file itself.
	gate, err := f.openGate(s, s.remembersAbsence())
	if err != nil {
		return false
	}
	defer gate.file.close()
	return gate.taken(m)
}

// openGate opens the gate of s. errStale means that the path has another file.
func (f *lockFile) openGate(s *sysFile, create bool) (sideLock, error) {
	if !s.bytesApart() {
		g, err := openFile(f.path+gateSuffix, create, f.opts.perm)
		if err != nil {
			return sideLock{}, err
		}
		return sideLock{g, siblingByte(s)}, nil
	}
	g, err := openFile(f.path, false, 0)
	if err != nil {
		return sideLock{}, err
	}
	id, err := g.identity()
	if err == nil && !s.isFile(id) {
		err = errStale
	}
	if err != nil {
		g.close()
		return sideLock{}, err
	}
	return sideLock{g, farByte}, nil
}

// siblingByte returns the byte of the gate file that is the gate of s. The byte
// depends on the lock file: when that is replaced, a waiter for the old file
// must not stop users of the new one.
func siblingByte(s *sysFile) int64 {
	if !byteLocks {
		return wholeFile
	}
	if at := int64(s.number() % farByte); at != 0 {
		return at
	}
	return farByte
}

// announce acquires the gate, so that other processes see that this one waits.
// It first waits for the processes at the gate that mode m must not overtake.
// The caller must call withdraw when it is done. If the gate cannot be used,
// announce returns nil, and the caller waits without it. Other errors are
// errStale and ctx.Err().
func (f *lockFile) announce(ctx context.Context, m mode) error {
	if f.announced || !f.fair {
		return nil
	}
	if err := f.prepareGate(ctx); err != nil {
		return err
	}
	if gate := f.gate.file; gate != nil {
		gateMode := m
		if !gate.writable {
			gateMode = shared // which stops other writers, if not readers
		}
		err := f.acquireGate(ctx, gateMode)
		switch {
		case err == nil:
			f.announced = true
			return nil
		case ctx.Err() != nil:
			f.announced = f.gate.file != nil // it may have been acquired
			return ctx.Err()
		case atpath.Forgotten(err):
			return errStale // the new file has a gate of its own
		}
	}
	return f.announceOwn(ctx, m)
}

// prepareGate opens the gate, unless it is open already or cannot be opened.
// The error is errStale or ctx.Err().
func (f *lockFile) prepareGate(ctx context.Context) error {
	if f.gate.file != nil {
		return nil
	}
	s := f.file
	var gate sideLock
	abandoned, err := f.opening(ctx, func() (err error) {
		gate, err = f.openGate(s, true)
		return err
	}, func() {
		if gate.file != nil {
			gate.file.close()
		}
	})
	if !abandoned && gate.file != nil { // even if ctx is done
		f.gate = gate
	}
	if err != nil && ctx.Err() != nil {
		if gate := f.gate.file; gate != nil && !gate.local { // withdraw does not keep one either
			f.gate = sideLock{}
			f.briefly(gate, gate.close)
		}
		return ctx.Err()
	}
	if err == errStale {
		f.knownAt = never
		return err
	}
	return nil
}

// announceOwn is like announce, but acquires the gate through f.file. It is for
// a process that cannot open another descriptor, because it has given up the
// permission or has none left. The kernel cannot wait on that descriptor, so
// announceOwn polls.
func (f *lockFile) announceOwn(ctx context.Context, m mode) error {
	s := f.file
	if !s.local || f.gate.file != nil {
		return nil
	}
	if !s.writable {
		m = shared
	}
	err := poll(ctx, f.opts.poll, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.dead {
			return errStale
		}
		err := ownGateOf(s).try(m)
		if err == nil {
			f.announced, f.ownGate = true, true
		} else if err == ErrLocked && f.look(s) == errStale {
			err = errStale
		}
		return err
	})
	if err != nil && err != errStale && ctx.Err() == nil {
		return nil
	}
	return err
}

// withdraw leaves the gate.
func (f *lockFile) withdraw() {
	if !f.announced {
		return
	}
	gate := f.gate
	own := f.ownGate
	f.announced, f.ownGate = false, false
	switch {
	case own:
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stuck.Store(true) // first, so that a later unlock closes the file
		if f.dead || ownGateOf(f.file).unlock() == nil {
			f.stuck.Store(false)
		}
	case !gate.file.local:
		f.gate = sideLock{}
		f.briefly(gate.file, gate.close)
	case gate.unlock() != nil:
		gate.file.close() // which leaves the gate
		f.gate = sideLock{}
	}
}
