//go:build !linux || interlock_bsd

package closewatch

import (
	"errors"
	"time"
)

// Available reports whether the system can watch files.
const Available = false

// A Watcher cannot exist on this system.
type Watcher struct{}

// New returns [errors.ErrUnsupported].
func New() (*Watcher, error) { return nil, errors.ErrUnsupported }

// Add returns [errors.ErrUnsupported].
func (*Watcher) Add(string) (int, error) { return 0, errors.ErrUnsupported }

// Drain does nothing.
func (*Watcher) Drain(func(int)) {}

// Close does nothing.
func (*Watcher) Close() {}

// A Waker cannot exist on this system.
type Waker struct{}

// NewWaker returns [errors.ErrUnsupported].
func NewWaker() (*Waker, error) { return nil, errors.ErrUnsupported }

// Wait returns [errors.ErrUnsupported].
func (*Waker) Wait(*Watcher, time.Duration) (woken bool, err error) {
	return false, errors.ErrUnsupported
}

// Wake does nothing.
func (*Waker) Wake() {}

// Close does nothing.
func (*Waker) Close() {}

// A Spare cannot exist on this system.
type Spare struct{}

// OpenSpare returns [errors.ErrUnsupported].
func OpenSpare(int, string) (*Spare, error) { return nil, errors.ErrUnsupported }

// Close does nothing.
func (*Spare) Close() {}
