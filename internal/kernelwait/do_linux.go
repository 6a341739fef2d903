//go:build !interlock_bsd

package kernelwait

import (
	"context"

	"github.com/interlock-go/interlock/internal/offload"
	"golang.org/x/sys/unix"
)

// Do makes a system call that may block in the kernel, on the caller's
// goroutine, and ends it when ctx ends. It is for file systems that always
// answer. For others, use [Offload].
//
// The function call must make exactly one system call on the descriptor that it
// gets, and return its error. That system call must fail on a descriptor that
// was opened with O_PATH, as flock(2) and fcntl(2) locks do. Do repeats it
// while it returns EINTR.
//
// If ctx cannot end, call gets fd itself. Otherwise it gets a copy, which
// shares the open file description: a lock acquired through the copy belongs to
// fd as well, and outlives the copy.
//
// If ctx ends first, the error is ctx.Err(). The call may have taken effect in
// the same instant, and the caller must undo it. If the error is
// [ErrUnavailable], call was not made.
func Do(ctx context.Context, fd int, call func(fd int) error) error {
	if !Reserve() {
		return ErrUnavailable
	}
	defer Unreserve()
	if ctx.Done() == nil {
		return ignoringEINTR(func() error { return call(fd) })
	}
	w, err := newWait(fd, false)
	if err != nil {
		return ErrUnavailable
	}
	// Run on this goroutine. Handing the result to another one would take
	// as long as the kernel needs to pass a lock from one process to the
	// next.
	stop := context.AfterFunc(ctx, w.cancel)
	err = w.run(call)
	w.close()
	if !stop() {
		return ctx.Err()
	}
	return err
}

// Offload is [Do] for file systems that may not answer, not even after the call
// was canceled. Unless ctx cannot end, the call runs by [offload.Run]:
// abandoned reports that it goes on, although ctx has ended. When an abandoned
// call has returned, and the copy of the descriptor is closed, late runs. Until
// then the call counts as a wait.
//
// With retry, the kernel repeats the call's request at growing intervals of at
// most half a second. The client of NFS v4.0, and that of a later version whose
// server does not call back, would repeat it only after 1, 2, 4, and at last 30
// seconds. With retry, call always gets a copy of fd.
func Offload(ctx context.Context, fd int, retry bool, call func(fd int) error, late func()) (abandoned bool, err error) {
	if !Reserve() {
		return false, ErrUnavailable
	}
	if ctx.Done() == nil && !retry {
		defer Unreserve()
		return false, ignoringEINTR(func() error { return call(fd) })
	}
	w, err := newWait(fd, retry)
	if err != nil {
		Unreserve()
		return false, ErrUnavailable
	}
	if ctx.Done() == nil {
		defer Unreserve()
		err = w.run(call)
		w.close()
		return false, err
	}
	abandoned, err = offload.Run(ctx, func() error { return w.run(call) }, w.cancel, func() {
		defer Unreserve()
		w.close()
		late()
	})
	if !abandoned {
		Unreserve()
		offload.Briefly(w.close) // may block as well
	}
	return abandoned, err
}

// ignoringEINTR repeats call while a signal interrupts it.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
