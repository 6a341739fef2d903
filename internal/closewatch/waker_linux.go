//go:build !interlock_bsd

package closewatch

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Waker lets one goroutine wait for a [Watcher], and lets other goroutines
// wake it. Each waiting goroutine needs a Waker of its own. If two shared one,
// the first could consume a wake-up that was for the second.
type Waker struct {
	event int // an eventfd(2), readable after Wake

	mu     sync.Mutex
	closed bool // event is closed
}

// NewWaker returns a Waker.
func NewWaker() (*Waker, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Waker{event: event}, nil
}

// Wait waits until w has an event that was not drained, or until [Waker.Wake]
// is called, and returns true. It returns true at once if Wake was called since
// the last Wait. After the timeout, Wait returns false. After an error, Wait
// did not wait. For example, the system refuses if the limit of open files is
// less than 2.
func (k *Waker) Wait(w *Watcher, timeout time.Duration) (woken bool, err error) {
	ready := []unix.PollFd{{Fd: int32(w.inotify), Events: unix.POLLIN}, {Fd: int32(k.event), Events: unix.POLLIN}}
	n := 0
	for end := time.Now().Add(timeout); ; timeout = max(time.Until(end), 0) {
		ts := unix.NsecToTimespec(int64(timeout))
		if n, err = unix.Ppoll(ready, &ts, nil); err != unix.EINTR { // the Go runtime uses signals itself
			break
		}
	}
	if ready[1].Revents != 0 {
		var count [8]byte
		unix.Read(k.event, count[:])
	}
	return n > 0, err
}

// Wake ends the current or the next Wait of k. Any goroutine may call it, even
// after Close.
func (k *Waker) Wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.closed {
		// Any number but 0 will do, and this one is valid in either byte order.
		one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1}
		unix.Write(k.event, one[:])
	}
}

// Close closes k, which may be nil. No goroutine may wait by k at that time or
// later.
func (k *Waker) Close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	unix.Close(k.event)
}
