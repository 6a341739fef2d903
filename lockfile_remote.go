package interlock

import (
	"context"

	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/raceedge"
)

// On a local file system, every call on an open file returns at once, except
// one that waits for a lock. On any other file system (remote, for short), it
// may never return, for example because a server is gone. There, a call with a
// context that can end is made on a goroutine of its own. If ctx is done and
// the call does not return soon, the call is abandoned: the lockFile forgets
// its file, and the effect of the call is undone when it returns at last. Only
// this file makes such calls. Users of a lockFile do not know the difference.

// call makes a call on the file. Its error is that of the call, or ctx.Err().
// In the latter case, the call may have taken effect, and the caller must undo
// it, unless the call was abandoned.
func (f *lockFile) call(ctx context.Context, call func() error) error {
	s := f.file
	if s.local {
		return call()
	}
	abandoned, err := offload.Do(ctx, s.device(), call, s.release)
	if abandoned {
		f.abandon()
	}
	return err
}

// ask makes a call that changes nothing. Unlike with call, the file stays if
// the call is abandoned.
func (f *lockFile) ask(ctx context.Context, call func() error) error {
	if f.file.local {
		return call()
	}
	_, err := offload.Do(ctx, f.file.device(), call, func() {})
	return err
}

// opening calls open, which opens a file or a gate. Opening can block on a
// local file system, too. If the call is abandoned, close runs when it has
// returned, and closes what it opened.
func (f *lockFile) opening(ctx context.Context, open func() error, close func()) (abandoned bool, err error) {
	return offload.Do(ctx, f.device, open, close)
}

// waitKernel waits for the lock in the kernel's queue.
func (f *lockFile) waitKernel(ctx context.Context, m mode) error {
	abandoned, err := f.file.waitKernel(ctx, m, f.file.release)
	if abandoned {
		f.abandon()
	}
	return err
}

// acquireGate acquires the gate. It blocks until it succeeds or ctx is done. In
// the latter case, it may have acquired the gate nevertheless.
func (f *lockFile) acquireGate(ctx context.Context, m mode) error {
	gate := f.gate
	giveUp := func(abandoned bool, err error) error {
		if abandoned {
			f.gate = sideLock{}
		}
		return err
	}
	try := func() error {
		if gate.file.local {
			return gate.try(m)
		}
		return giveUp(offload.Do(ctx, f.device, func() error { return gate.try(m) }, gate.close))
	}
	err := try()
	if err == ErrLocked {
		late := gate.close
		if gate.file.local {
			late = nil
		}
		err = giveUp(gate.wait(ctx, m, late))
	}
	if err == errCannotWait {
		err = poll(ctx, f.opts.poll, try)
	}
	return err
}

// abandon leaves the file to a call that was abandoned, which releases it.
func (f *lockFile) abandon() {
	if gate := f.gate; gate.file != nil {
		go gate.close()
	}
	f.forget()
}

// undo unlocks the file after a call that may have locked it although ctx is
// done. It does not wait for a file system that does not answer.
func (f *lockFile) undo() {
	if f.file == nil {
		return // abandoned
	}
	ctx, cancel := context.WithTimeout(context.Background(), offload.Grace())
	defer cancel()
	f.unlockUntil(ctx)
	f.repair()
}

// currentNow reports whether the file is known to be the one at the path. It
// reports false if it cannot tell at once.
func (f *lockFile) currentNow() bool { return f.local && f.file != nil && f.look(f.file) == nil }

// takenNow reports whether another open file has the side lock l of the file,
// in any mode. It reports false if it cannot tell at once.
func (f *lockFile) takenNow(l sideLock) bool {
	return f.byteLocksLocal && l.file != nil && l.taken(exclusive)
}

// unlockSide releases a side lock of the file, and reports whether that
// succeeded. It does not wait long for a file system after ctx is done.
func (f *lockFile) unlockSide(ctx context.Context, l sideLock) bool {
	if f.file.local {
		return l.unlock() == nil
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.Background(), offload.Grace())
		defer cancel()
	}
	return f.call(ctx, l.unlock) == nil
}

// unlockUntil is like unlock, but gives up the file if ctx is done before the
// file system answers.
func (f *lockFile) unlockUntil(ctx context.Context) {
	s := f.file
	if s.local || ctx.Done() == nil {
		f.unlock()
		return
	}
	if raceedge.Enabled {
		raceedge.Release(s.number())
	}
	var err error // of the call, even if ctx is done when it returns
	abandoned, _ := offload.Run(ctx, func() error { err = s.unlock(); return err }, func() {}, s.release)
	switch {
	case abandoned:
		f.abandon()
	case err != nil:
		f.close()
	}
}

// releaseWithin makes a call that releases locks, and reports whether the call
// has returned. It waits for a remote file system only until ctx is done. If it
// reports false, late runs after the call.
func (f *lockFile) releaseWithin(ctx context.Context, call, late func()) bool {
	if f.local || ctx.Done() == nil {
		call()
		return true
	}
	abandoned, _ := offload.Run(ctx, func() error { call(); return nil }, func() {}, late)
	return !abandoned
}

// seesCloses reports whether a watcher learns of every close of the file, by
// any process.
func (f *lockFile) seesCloses() bool { return f.local }

// briefly makes a call that closes s or its gate. It does not wait for a file
// system that does not answer.
func (f *lockFile) briefly(s *sysFile, call func()) {
	if s.local {
		call()
	} else {
		offload.Briefly(call)
	}
}
