package interlock

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

var (
	errCannotWait = errors.New("interlock: the kernel cannot wait for us")
	errAbandoned  = errors.New("interlock: wait abandoned")
)

// maxThreads bounds the threads that wait in the kernel, and those that are left there
// because nothing can end their call, over the whole process. The runtime itself ends a
// program with more than 10,000 threads.
const maxThreads = 512

var threads = semaphore.NewWeighted(maxThreads)

// grace is how long an offloaded call may take to end after its context has. A call that
// can be ended, ends within microseconds; only a busy machine needs more.
const grace = 10 * time.Millisecond

// offload runs call, which may block in the kernel, on a goroutine of its own, and gives
// up one of the threads, which the caller has acquired, when it has ended.
//
// When ctx ends, offload calls end, which should make the call end, if there is one. If
// the call returns soon, the result is ctx.Err(), whatever the call has returned; if not,
// errAbandoned: then dispose runs when the call has returned at last. That must undo what
// the call may have done, and may do it only through what the caller has left to it.
func offload(ctx context.Context, call func() error, end, dispose func()) error {
	const running, returned, abandoned = 0, 1, 2
	var state atomic.Int32
	result := make(chan error, 1)
	go func() {
		err := call()
		if state.CompareAndSwap(running, returned) {
			threads.Release(1)
			result <- err
			return
		}
		dispose()
		threads.Release(1)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	if end != nil {
		end()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-result:
	case <-timer.C:
		if state.CompareAndSwap(running, abandoned) {
			return errAbandoned
		}
		<-result
	}
	return ctx.Err()
}
