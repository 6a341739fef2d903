package interlock

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/semaphore"
)

var (
	errCannotWait = errors.New("interlock: the kernel cannot wait for us")
	errAbandoned  = errors.New("interlock: call abandoned")
)

// maxThreads bounds the threads that wait in the kernel for locks (waits), and those whose other
// calls a file system does not answer though their context has ended, each over the whole process. The runtime itself ends a program with more than
// 10,000 threads.
const maxThreads = 512

var waits, calls = semaphore.NewWeighted(maxThreads), semaphore.NewWeighted(maxThreads)

// grace is how long an offloaded call may take to end after its context has. A call that
// can be ended, ends within microseconds; only a busy machine needs more.
const grace = 10 * time.Millisecond

// offload runs call, which may block in the kernel, on a goroutine of its own. The caller has
// acquired one of the threads, which offload releases when all is done.
//
// When ctx ends, end is called, which should make the call return. If both return soon, the
// result is ctx.Err(), whatever the call's was; if not, errAbandoned: then dispose runs when they
// have returned at last. It must undo what the call may have done, and owns what it needs for that.
func offload(ctx context.Context, threads *semaphore.Weighted, call func() error, end, dispose func()) error {
	result := make(chan error, 1)
	go func() { result <- call() }()
	select {
	case err := <-result:
		threads.Release(1)
		return err
	case <-ctx.Done():
	}
	returned, abandoned := make(chan struct{}), make(chan struct{})
	go func() {
		defer threads.Release(1)
		end() // which itself may get no answer
		<-result
		select {
		case returned <- struct{}{}:
		case <-abandoned:
			dispose()
		}
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-returned:
		return ctx.Err()
	case <-timer.C:
		close(abandoned)
		return errAbandoned
	}
}

// callFS makes a call to a file system that may not answer, which waits for nobody otherwise. ctx can end it:
// then the error is ctx.Err(), or errAbandoned if dispose will run when the answer comes (see [offload]).
func callFS(ctx context.Context, call func() error, dispose func()) error {
	if ctx.Done() == nil {
		return call()
	}
	if calls.Acquire(ctx, 1) != nil {
		return ctx.Err()
	}
	return offload(ctx, calls, call, func() {}, dispose)
}

// briefly waits for call, but goes on without it if a file system does not answer.
func briefly(call func()) {
	done := make(chan struct{})
	go func() {
		call()
		close(done)
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
