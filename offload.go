package interlock

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

var (
	errCannotWait = errors.New("interlock: the kernel cannot wait for us")
	errAbandoned  = errors.New("interlock: call abandoned")
)

// How many threads may wait in the kernel for locks, and how many for other calls that a file system does not
// answer though their context has ended: those to one file system, and in all. The runtime itself ends a program
// with more than 10,000 threads. A thread that waits takes 10 to 20 kB and no time; who must
// poll instead, since there are too many, wakes fifty times a second.
const (
	maxWaits    = 2048
	maxCalls    = 512
	maxAllCalls = 4096
)

var waits, allCalls = semaphore.NewWeighted(maxWaits), semaphore.NewWeighted(maxAllCalls)

// calls has a semaphore for the calls to each file system, by its device: one that does not answer must not hold up
// those that do.
var calls sync.Map

func callsTo(device uint64) *semaphore.Weighted {
	threads, ok := calls.Load(device)
	if !ok {
		threads, _ = calls.LoadOrStore(device, semaphore.NewWeighted(maxCalls))
	}
	return threads.(*semaphore.Weighted)
}

// grace is how long an offloaded call may take to end after its context has. A call that
// can be ended, ends within microseconds; only a busy machine needs more. Tests set it.
var grace = 10 * time.Millisecond

// offload runs call, which may block in the kernel, on a goroutine of its own. The caller has
// acquired a thread; offload calls release when all is done.
//
// When ctx ends, end is called, which should make the call return. If both return soon, the
// result is ctx.Err(), whatever the call's was; if not, errAbandoned: then dispose runs when they
// have returned at last. It must undo what the call may have done, and owns what it needs for that.
func offload(ctx context.Context, release func(), call func() error, end, dispose func()) error {
	result := make(chan error, 1)
	go func() { result <- call() }()
	select {
	case err := <-result:
		release()
		return err
	case <-ctx.Done():
	}
	returned, abandoned := make(chan struct{}), make(chan struct{})
	go func() {
		defer release()
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
func callFS(ctx context.Context, device uint64, call func() error, dispose func()) error {
	if ctx.Done() == nil {
		return call()
	}
	threads := callsTo(device)
	if threads.Acquire(ctx, 1) != nil {
		return ctx.Err()
	}
	if allCalls.Acquire(ctx, 1) != nil {
		threads.Release(1)
		return ctx.Err()
	}
	release := func() {
		allCalls.Release(1)
		threads.Release(1)
	}
	return offload(ctx, release, call, func() {}, dispose)
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
