package interlock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestSizeIsTheSameForAll(t *testing.T) {
	name := semName(t)
	newSemaphore(t, name, 4)
	s, err := NewFileSemaphore(name, 3)
	var pathErr *fs.PathError
	if s != nil || !errors.As(err, &pathErr) || pathErr.Path != name+".gate.lock" {
		t.Errorf("got error %v, want one with %s", err, name+".gate.lock")
	}
}

// The size can be a large one. The file may be empty, torn by a crash, or full
// of zeros after a power failure.
func TestUnusedSemaphoreTakesNewSize(t *testing.T) {
	name := semName(t)
	for size, left := range map[int64]string{
		4:       "",
		1 << 62: "1",
		12:      "",
		3:       "461    8  \n",
		5:       strings.Repeat("\x00", 20),
		6:       "12\x00\x00",
	} {
		s, err := NewFileSemaphore(name, size)
		must(t, err)
		wantTry(t, s, 1, true)
		s.Release(1)
		must(t, s.Close())
		must(t, os.WriteFile(name+".gate.lock", []byte(left), 0o600))
	}
}

// A file with several names may be used for something else under another one.
func TestSizeNotWrittenToLinkedFile(t *testing.T) {
	name := semName(t)
	other := filepath.Join(filepath.Dir(name), "other")
	const size = "4                  \n"
	must(t, os.WriteFile(other, []byte(size), 0o600))
	if err := os.Link(other, name+".gate.lock"); err != nil {
		t.Skip(err)
	}
	err := newSemaphoreError(name, 3)
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != name+".gate.lock" || !errors.Is(err, errLinked) {
		t.Errorf("got error %v, want %s: %v", err, name+".gate.lock", errLinked)
	}
	if data := Must(os.ReadFile(other)); string(data) != size {
		t.Errorf("the file now contains %q", data)
	}
	must(t, newSemaphoreError(name, 4)) // the same size, so nothing is written
	must(t, os.Remove(other))
	newSemaphore(t, name, 3)
}

// Callers that open a semaphore at the same time, with different sizes, never
// have it open with two sizes.
func TestConcurrentSizesNeverMix(t *testing.T) {
	name := semName(t)
	var using [4]atomic.Int32
	var opened atomic.Int32
	hammer(t, 4, 50, func(i int) {
		size := i % 3
		s, err := NewFileSemaphore(name, int64(size))
		if err != nil {
			if !strings.Contains(err.Error(), "in use") {
				t.Error(err)
			}
			return
		}
		opened.Add(1)
		using[size].Add(1)
		runtime.Gosched()
		for other := range using {
			if other != size && using[other].Load() > 0 {
				t.Errorf("open with sizes %d and %d", size, other)
			}
		}
		using[size].Add(-1)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if opened.Load() == 0 {
		t.Error("no call succeeded")
	}
}

// The gate file is replaced, and its successor has another size.
func TestAcquireFailsIfSizeChanged(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 4)
	wantTry(t, s, 1, true)
	remove(t, name+".gate.lock")
	newSemaphore(t, name, 3)
	time.Sleep(checkInterval)
	err := s.Acquire(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "size 3") || !strings.Contains(err.Error(), "size 4") {
		t.Errorf("got error %v, want one with both sizes", err)
	}
	s.Release(1)
}
