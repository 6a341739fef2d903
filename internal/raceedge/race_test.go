//go:build race && unix

package raceedge

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Two goroutines use a variable under a file lock only. Without the package,
// the race detector would report that, and the test would fail.
func TestFileLockIsAnEdge(t *testing.T) {
	const key = 4711
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	shared := 0
	work := func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range 20 {
			for unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
				time.Sleep(time.Microsecond)
			}
			Acquire(key)
			shared++
			Release(key)
			if err := unix.Flock(fd, unix.LOCK_UN); err != nil {
				return err
			}
			time.Sleep(time.Microsecond)
		}
		return nil
	}
	done := make(chan error)
	for range 2 {
		go func() { done <- work() }()
	}
	for range 2 {
		must(t, <-done)
	}
	if shared != 40 {
		t.Errorf("the variable is %d, want 40", shared)
	}
	if !Enabled {
		t.Error("the race detector is not seen")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
