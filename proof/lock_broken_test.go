//go:build linux

package proof

import (
	"context"

	"github.com/interlock-go/interlock"
	"golang.org/x/sys/unix"
)

// An uncheckedFile is opened once and locked by flock(2). It never checks
// whether the file is still the one at its path.
type uncheckedFile struct{ fd int }

func openUnchecked(path string, _ int64) (lock, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	return uncheckedFile{fd}, err
}

func (f uncheckedFile) acquire(ctx context.Context, weight int64) error {
	return poll(ctx, func() error { return f.try(weight) })
}

func (f uncheckedFile) try(weight int64) error {
	mode := unix.LOCK_EX
	if weight == 1 {
		mode = unix.LOCK_SH
	}
	if err := unix.Flock(f.fd, mode|unix.LOCK_NB); err != nil {
		return interlock.ErrLocked
	}
	return nil
}

func (f uncheckedFile) release(int64) { unix.Flock(f.fd, unix.LOCK_UN) }

// An earlyReleaseMutex releases a lock for writing as soon as it has it.
type earlyReleaseMutex struct{ rwMutex }

func openEarlyRelease(path string, capacity int64) (lock, error) {
	m, err := interlock.NewFileRWMutex(path)
	return earlyReleaseMutex{rwMutex{m}}, err
}

func (m earlyReleaseMutex) acquire(ctx context.Context, weight int64) error {
	err := m.rwMutex.acquire(ctx, weight)
	if err == nil && weight > 1 {
		m.Unlock()
	}
	return err
}

func (m earlyReleaseMutex) try(weight int64) error {
	err := m.rwMutex.try(weight)
	if err == nil && weight > 1 {
		m.Unlock()
	}
	return err
}

func (m earlyReleaseMutex) release(weight int64) {
	if weight == 1 {
		m.RUnlock()
	}
}

// A tooFewSemaphore acquires one unit too few, except if it should acquire one.
type tooFewSemaphore struct{ semaphore }

func openTooFew(path string, capacity int64) (lock, error) {
	s, err := interlock.NewFileSemaphore(path, capacity)
	return tooFewSemaphore{semaphore{s}}, err
}

func (s tooFewSemaphore) acquire(ctx context.Context, n int64) error {
	return s.semaphore.acquire(ctx, max(1, n-1))
}
func (s tooFewSemaphore) try(n int64) error { return s.semaphore.try(max(1, n-1)) }
func (s tooFewSemaphore) release(n int64)   { s.semaphore.release(max(1, n-1)) }
