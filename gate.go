package interlock

import (
	"context"
	"errors"
)

// errNoGate: the gate cannot be opened, or not be locked; wait without it.
var errNoGate = errors.New("interlock: no gate")

// gateSuffix is appended to the path of a lock file to name its gate, where that is a file
// of its own.
const gateSuffix = ".gate"

func (f *lockFile) openGate(create bool) (handle, error) {
	if !f.gateInFile() {
		h, err := openHandle(f.path+gateSuffix, create, f.perm)
		h.gateFor(f.handle)
		return h, err
	}
	h, err := openHandle(f.path, false, 0)
	if err != nil {
		return h, err
	}
	id, err := f.identity()
	if err == nil {
		var at identity
		if at, err = h.identity(); err == nil && (at.dev != id.dev || at.ino != id.ino) {
			err = errStale
			if f.local {
				f.knownAt = never
			}
		}
	}
	if err != nil {
		h.close()
	}
	return h, err
}

// gateTaken reports whether somebody waits for the lock whom m must not overtake: for a
// reader that is a writer, for a writer it is anybody. What we do not know of is nobody.
func (f *lockFile) gateTaken(m hold) bool {
	if f.gateInFile() {
		return f.handle.gateTaken(m)
	}
	// A machine may remember for a minute that there was no gate, unless it is to create it.
	h, err := f.openGate(f.remembersAbsence())
	if err != nil {
		return false
	}
	defer h.close()
	return h.gateTaken(m)
}

// takeGate waits for the gate until ctx ends. Without an error, f.gated is set; and
// with ctx.Err(), it may be.
func (f *lockFile) takeGate(ctx context.Context, m hold, p pollInterval) error {
	if f.gate == nil {
		var gate *handle
		err := f.call(ctx, func() error {
			h, err := f.openGate(true)
			if err == nil {
				gate = &h
			}
			return err
		}, func() {
			if gate != nil {
				gate.close()
			}
		})
		if err == errAbandoned {
			return ctx.Err()
		}
		f.gate = gate
		if err != nil {
			if err == errStale || ended(ctx, err) {
				return err
			}
			return errNoGate
		}
	}
	if !f.gate.writable {
		m = shared // which still holds up other writers, if not readers
	}
	gate := f.gate
	try := func() error { return f.call(ctx, func() error { return gate.tryGate(m) }, gate.closeGate) }
	err := try()
	if err == ErrLocked {
		err = gate.waitGate(ctx, m, gate.closeGate)
	}
	if err == errCannotWait {
		err = poll(ctx, p, try)
	}
	switch {
	case err == nil:
		f.gated = true
		return nil
	case err == errAbandoned:
		f.gate = nil
		return ctx.Err()
	case ended(ctx, err):
		f.gated = true // perhaps, and then to be left
		return err
	case unknownFile(err):
		return errStale // a new gate comes with the new file
	}
	return errNoGate
}

// tryOwnGate is takeGate by the description of the lock, for want of another: since the right to open the file was
// given up, or there are no more descriptors. It does not wait: ErrLocked. Unlike there, nobody else may unlock
// the file meanwhile, as that may close it.
func (f *lockFile) tryOwnGate(m hold) error {
	if !f.local || f.dead || f.gate != nil {
		return errNoGate
	}
	if !f.writable {
		m = shared
	}
	err := f.tryGate(m)
	if err != nil && err != ErrLocked {
		return errNoGate
	}
	f.gated = err == nil
	return err
}

// leaveGate lets the others in. Should the system refuse that, and the gate be tryOwnGate's, f.gated stays.
func (f *lockFile) leaveGate() {
	switch {
	case !f.gated:
	case f.gate == nil:
		if !f.dead && f.handle.leaveGate() != nil {
			return // until the lock is released too, and f can be closed
		}
	case f.gate.leaveGate() != nil:
		f.gate.close() // which leaves it
		f.gate = nil
	}
	f.gated = false
}

// closeGate leaves the gate and closes it.
func (f *lockFile) closeGate() {
	if f.gate == nil {
		f.leaveGate()
		return
	}
	f.gate.closeGate()
	f.gate, f.gated = nil, false
}

func (h *handle) closeGate() {
	h.leaveGate() // as in closeLock
	h.close()
}
