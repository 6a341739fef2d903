package systemtest

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// A file system in user space may fail a call with EINTR when a signal arrives,
// even if the handler has SA_RESTART. The Go runtime and programs use signals
// all the time.
func TestSignalFailsNoCall(t *testing.T) {
	_, path := mountFUSE(t, "interruptible")
	thread, done := make(chan int), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		done <- manyCalls(t, path)
	}()
	tid := <-thread
	for pause := time.Millisecond; ; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		case <-time.After(pause):
			unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
			// Even on a busy machine, some pauses are long enough for an answer.
			if pause *= 2; pause > 200*time.Millisecond {
				pause = time.Millisecond
			}
		}
	}
}

func manyCalls(t *testing.T, path string) error {
	var errs []error
	for range 3 {
		m, err := interlock.NewFileRWMutex(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for range 2 {
			if err := m.LockContext(t.Context()); err != nil {
				errs = append(errs, err)
				continue
			}
			m.Unlock()
			if err := m.TryLockContext(context.Background()); err != nil {
				errs = append(errs, err)
				continue
			}
			m.Unlock()
		}
		kit.Must(t, m.Close())
		s, err := interlock.NewFileSemaphore(filepath.Join(filepath.Dir(path), "sem"), 1)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := s.Acquire(context.Background(), 1); err != nil {
			errs = append(errs, err)
		} else {
			s.Release(1)
		}
		kit.Must(t, s.Close())
		if _, err := interlock.Holders(path); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
