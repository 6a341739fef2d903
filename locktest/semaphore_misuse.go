package locktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

func semNames(t *semFixture) {
	s := t.open()
	t.name += "-other"
	other, third := t.openRemote(), t.open()
	acquire(t, s, 3)
	wantTry(t, other, 2, true)
	wantTry(t, third, 2, false)
	wantTry(t, third, 1, true)
	release(t, other, 2)
	release(t, third, 1)
	release(t, s, 3)
}

func semMisuse(t *semFixture, s, other, third Semaphore) {
	misuse := func(used int64) {
		t.Helper()
		t.panics("Acquire of -1", func() { s.Acquire(t.Context(), -1) })
		t.panics("TryAcquire of -1", func() { s.TryAcquire(-1) })
		t.panics("Release of -1", func() { s.Release(-1) })
		t.panics(fmt.Sprintf("Release of %d units, of which %d are in use", used+1, used), func() { s.Release(used + 1) })
	}
	misuse(0)
	acquire(t, s, 1)
	misuse(1)
	if s != other {
		acquire(t, other, 1)
		misuse(1) // s may not release the unit of another object
		wantTry(t, third, 1, false)
		release(t, other, 1)
	}
	wantTry(t, third, 2, false)
	release(t, s, 1)
	wantTry(t, third, 2, true)
	release(t, third, 2)
	misuse(0)
}

func semClose(t *semFixture) {
	s, other := t.open(), t.openRemote()
	acquire(t, s, 1)
	if t.closeLock(s) == nil {
		t.Fatal("Close succeeds while units are in use")
	}
	wantTry(t, other, 2, false)
	release(t, s, 1)
	acquire(t, other, 1)
	waiter := startAcquire(context.Background(), s, 2)
	untilTryFails(t, other, 1)
	if t.closeLock(s) == nil {
		t.Fatal("Close succeeds while a goroutine waits")
	}
	release(t, other, 1)
	t.succeeds(waiter)
	release(t, s, 2)

	t.must(t.closeLock(s))
	if err := t.closeLock(s); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("second Close: error %v, want one that matches fs.ErrClosed", err)
	}
	for _, n := range []int64{0, 1, 2} {
		if err := t.result(startAcquire(context.Background(), s, n)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Acquire(%d) after Close: error %v, want one that matches fs.ErrClosed", n, err)
		}
	}
	t.panics("TryAcquire after Close", func() { s.TryAcquire(1) })
	again := t.open()
	wantTry(t, other, 2, true)
	wantTry(t, again, 1, false)
	release(t, other, 2)
}
