package locktest

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

func oversizedAcquire(t *semFixture, s, other, third Semaphore) {
	for _, busy := range []bool{false, true} {
		if busy {
			acquire(t, other, 1)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		expires, cancelExpires := context.WithTimeout(context.Background(), watchTime)
		defer cancelExpires()
		oversized, expired := startAcquire(ctx, s, 3), startAcquire(expires, s, 1<<40)
		t.blocks(oversized)
		wantTry(t, third, 3, false)
		wantTry(t, third, 1, true)
		release(t, third, 1)
		if !busy {
			acquire(t, other, 2)
			release(t, other, 2)
			wantTry(t, s, 2, true)
			release(t, s, 2)
		}
		cancel()
		t.failsWith(oversized, context.Canceled)
		t.failsWith(expired, context.DeadlineExceeded)
	}
	release(t, other, 1)
	wantTry(t, s, 2, true)
	release(t, s, 2)
}

func sizeZero(t *semFixture, s, other, third Semaphore) {
	wantTry(t, s, 0, true)
	wantTry(t, other, 1, false)
	acquire(t, other, 0)
	ctx, cancel := context.WithTimeout(context.Background(), watchTime)
	defer cancel()
	t.failsWith(startAcquire(ctx, third, 1), context.DeadlineExceeded)
	acquire(t, third, 0)
	release(t, third, 0)
}

// openSized opens a semaphore with the given size, or returns the error.
func openSized(t *semFixture, size int64) (s Semaphore, err error) {
	t.Helper()
	err = t.resultNoPanic(start(func() (err error) {
		s, err = t.newLock(t.name, size)
		return err
	}))
	return s, err
}

func sizeIsShared(t *semFixture) {
	s := t.open()
	refused := func(size int64) {
		t.Helper()
		names := func(err error) {
			t.Helper()
			text := strings.ReplaceAll(err.Error(), t.name, "") // the name may contain the digits
			for _, n := range []int64{4, size} {
				if !regexp.MustCompile(fmt.Sprintf(`\b%d\b`, n)).MatchString(text) {
					t.Errorf("error %q, want one that names the sizes 4 and %d", err, size)
					return
				}
			}
		}
		if other, err := openSized(t, size); err == nil {
			t.closeLock(other)
			t.Errorf("opened with size %d while the size is 4", size)
		} else {
			names(err)
		}
		p, err := startProcess(t.T, t.kind, t.name, size)
		if err == nil {
			t.Errorf("another process opened with size %d while the size is 4", size)
			p.Kill()
		} else {
			names(err)
		}
	}
	refused(3)
	refused(15)
	// The same holds, without delay, while units are in use and goroutines
	// wait.
	acquire(t, s, 4)
	waiter := startAcquire(context.Background(), s, 1)
	t.blocks(waiter)
	refused(0)
	t.open()
	t.process()
	release(t, s, 4)
	t.succeeds(waiter)
	release(t, s, 1)
}

func unusedAcceptsNewSize(t *semFixture) {
	for _, t.size = range []int64{4, 3, 12, 0, 1} {
		s, err := openSized(t, t.size)
		t.must(err)
		wantSize(t, s, t.size)
		wantTry(t, s, t.size+1, false)
		wantTry(t, s, t.size, true)
		release(t, s, t.size)
		t.must(t.closeLock(s))
	}
	t.size = 5
	p := t.process()
	wantSize(t, t.remote(p), 5)
	acquire(t, t.remote(p), 5)
	p.Kill()
	t.size = 2
	var err error
	defer func() {
		if err != nil {
			t.Log(err)
		}
	}()
	t.eventually("opened with a new size after the last user was killed", func() bool {
		var s Semaphore
		if s, err = openSized(t, t.size); err == nil {
			t.must(t.closeLock(s))
		}
		return err == nil
	})
	s := t.open()
	wantTry(t, s, 3, false)
	wantTry(t, s, 2, true)
	release(t, s, 2)
}
