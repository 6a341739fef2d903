// Package kernelwait makes system calls that block in the kernel, such as
// flock(2), and ends them when a context ends.
//
// A process that waits in the kernel's own queue wakes as soon as its turn
// comes, and a waiting thread costs no CPU time. But a goroutine that makes
// such a call cannot give up. On Linux, this package makes that possible; see
// Do and Offload. On other systems, it only counts waits, and callers poll.
//
// The mechanism acts on the descriptor table of the canceling thread. A
// goroutine must not use it on a thread that has a table of its own, by
// unshare(2) with CLONE_FILES.
package kernelwait

import (
	"errors"
	"sync/atomic"
)

// ErrUnavailable says that a call was not made, because too many threads wait
// already or no descriptor is free. The caller must poll.
var ErrUnavailable = errors.New("interlock: waiting in the kernel is unavailable")

// MaxWaits is how many threads may wait in the kernel at once. The Go runtime
// ends a program that has more than 10,000 threads. A waiting thread takes 10
// to 20 kB of memory and no CPU time.
const MaxWaits = 2048

// waits is how many threads wait, or are about to. It exceeds maxWaits only for
// moments, while [Reserve] fails.
var waits, maxWaits atomic.Int64

func init() { maxWaits.Store(MaxWaits) }

// Reserve counts one more waiting thread, and reports whether that is allowed.
// If so, the caller must call [Unreserve] after the wait. Do and Offload call
// both. Reserve is for goroutines that block in the kernel in another way.
func Reserve() bool {
	if waits.Add(1) > maxWaits.Load() {
		waits.Add(-1)
		return false
	}
	return true
}

// Unreserve takes back a successful [Reserve].
func Unreserve() { waits.Add(-1) }

// Waits returns how many waiting threads are counted, for tests.
func Waits() int { return int(waits.Load()) }

// SetMaxWaits replaces [MaxWaits], for tests, and returns a function that
// restores the old limit. With 0, every wait is unavailable.
func SetMaxWaits(n int) (restore func()) {
	old := maxWaits.Swap(int64(n))
	return func() { maxWaits.Store(old) }
}
