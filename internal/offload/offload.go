// Package offload makes calls that a file system may never answer.
//
// A network server that is down, or a user-space file system that hangs, can
// block a system call forever, and signals may fail to interrupt it. The
// package runs such a call on a goroutine of its own. When the caller's context
// ends, the caller stops waiting, and the call is abandoned.
//
// An abandoned call may still take effect, minutes later. So the caller passes
// a function named late, which runs once the call has returned, and which must
// undo what the call did.
//
// An abandoned call occupies a thread. [Do] bounds how many there can be.
package offload

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// MaxPerDevice is how many calls by [Do] may run at once on one file system,
// and MaxCalls on all of them. The Go runtime ends a program that has more than
// 10,000 threads, and each call may occupy one.
const (
	MaxPerDevice = 512
	MaxCalls     = 4096
)

// calls counts the calls by Do on all file systems. perDevice has a
// [*semaphore.Weighted] for each device, so that a file system that does not
// answer leaves room for the calls to the others.
var (
	calls     = semaphore.NewWeighted(MaxCalls)
	perDevice sync.Map
)

func callsTo(device uint64) *semaphore.Weighted {
	sem, ok := perDevice.Load(device)
	if !ok {
		sem, _ = perDevice.LoadOrStore(device, semaphore.NewWeighted(MaxPerDevice))
	}
	return sem.(*semaphore.Weighted)
}

// grace is the grace period, in nanoseconds.
var grace atomic.Int64

func init() { grace.Store(int64(10 * time.Millisecond)) }

// Grace returns how long a call may run on after its context has ended before
// it is abandoned. A call that can be ended returns within microseconds. Only a
// busy machine needs more.
func Grace() time.Duration { return time.Duration(grace.Load()) }

// SetGrace sets the result of [Grace], for tests, and returns a function that
// restores the old one.
func SetGrace(d time.Duration) (restore func()) {
	old := grace.Swap(int64(d))
	return func() { grace.Store(old) }
}

// Run runs call, which may block in the kernel, on a goroutine of its own, and
// returns its error.
//
// When ctx ends, Run calls end, which should make call return. If end is nil,
// nothing can end the call. Then Run returns ctx.Err(), whatever the result of
// call, which may have taken effect:
//
//   - If call and end return within [Grace], abandoned is false. The caller
//     must undo what call did.
//   - Otherwise abandoned is true. When call and end have returned, late runs,
//     on another goroutine. It must undo what call did, and owns all that it
//     needs for that.
//
// Run does not bound how many calls there are at once.
func Run(ctx context.Context, call func() error, end, late func()) (abandoned bool, err error) {
	result := make(chan error, 1)
	go func() { result <- call() }()
	select {
	case err := <-result:
		return false, err
	case <-ctx.Done():
	}
	// The call ends in one of two ways. Either the goroutine sends on returned,
	// and this function receives, or this function closes givenUp, and the
	// goroutine runs late. The send succeeds only while this function waits for
	// it, so both always agree.
	returned, givenUp := make(chan struct{}), make(chan struct{})
	go func() {
		if end != nil {
			end() // may block as well
		}
		<-result
		select {
		case returned <- struct{}{}:
		case <-givenUp:
			late()
		}
	}()
	timer := time.NewTimer(Grace())
	defer timer.Stop()
	select {
	case <-returned:
		return false, ctx.Err()
	case <-timer.C:
		close(givenUp)
		return true, ctx.Err()
	}
}

// Do is [Run] for a call to the file system on device that waits only for that
// file system, so that nothing can end it. At most [MaxPerDevice] such calls
// run at once on one device, and at most [MaxCalls] in all. If ctx ends before
// there is room for another, the error is ctx.Err(), and the call was not made.
//
// If ctx cannot end, Do makes the call on the caller's goroutine, and does not
// count it.
func Do(ctx context.Context, device uint64, call func() error, late func()) (abandoned bool, err error) {
	if ctx.Done() == nil {
		return false, call()
	}
	// The device comes first: a call that waits for a slow device must not take
	// the place of a call to another one.
	onDevice := callsTo(device)
	if onDevice.Acquire(ctx, 1) != nil {
		return false, ctx.Err()
	}
	if calls.Acquire(ctx, 1) != nil {
		onDevice.Release(1)
		return false, ctx.Err()
	}
	release := func() {
		calls.Release(1)
		onDevice.Release(1)
	}
	abandoned, err = Run(ctx, call, nil, func() {
		defer release() // late may call the same file system
		late()
	})
	if !abandoned {
		release()
	}
	return abandoned, err
}

// Briefly runs call on a goroutine of its own, and waits for it for at most
// [Grace]. It is for calls that release something, and whose result does not
// matter.
func Briefly(call func()) {
	done := make(chan struct{})
	go func() {
		call()
		close(done)
	}()
	timer := time.NewTimer(Grace())
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
