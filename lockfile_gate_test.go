package interlock

import (
	"context"
	"testing"
	"time"
)

// A process at the gate stops those that it must not be overtaken by: a writer
// stops all, a reader stops writers.
func TestGateStopsNewcomers(t *testing.T) {
	for _, at := range []mode{exclusive, shared} {
		waiter, f, _ := lockFilesAt(t, lockPath(t))
		must(t, waiter.announce(t.Context(), at))
		must(t, waiter.announce(t.Context(), at)) // is there already
		for _, m := range []mode{exclusive, shared} {
			stopped := at == exclusive || m == exclusive
			askAgain(f)
			err := f.try(t.Context(), m)
			if stopped {
				wantErr(t, "a "+m.op()+" behind a "+at.op(), err, ErrLocked)
			} else {
				must(t, err)
				f.unlock()
			}
		}
		waiter.withdraw()
		waiter.withdraw() // has left already
		must(t, f.try(t.Context(), exclusive))
		f.unlock()
	}
}

// The same by a FileRWMutex.
func TestWaiterIsNotOvertaken(t *testing.T) {
	for _, at := range []mode{exclusive, shared} {
		path := lockPath(t)
		m, waiter := newMutex(t, path), lockFileAt(t, path)
		must(t, waiter.announce(t.Context(), at))
		if m.TryLock() {
			t.Errorf("a writer overtakes a waiting %s", at.op())
		}
		if m.TryRLock() != (at == shared) {
			t.Errorf("TryRLock is wrong behind a waiting %s", at.op())
		}
		if at == shared {
			m.RUnlock()
		}
		time.Sleep(time.Millisecond) // m remembers for a moment what it saw
		writer := locking(t.Context(), m)
		pending(t, writer)
		waiter.withdraw()
		must(t, finish(t, writer))
		m.Unlock()
	}
}

// Processes that must not overtake each other wait for the gate.
func TestAnnounceWaitsForGate(t *testing.T) {
	for _, c := range []struct {
		first, second mode
		waits         bool
	}{
		{exclusive, exclusive, true},
		{exclusive, shared, true},
		{shared, exclusive, true},
		{shared, shared, false},
	} {
		a, b, _ := lockFilesAt(t, lockPath(t))
		must(t, a.announce(t.Context(), c.first))
		if c.waits {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			wantErr(t, "announce with a deadline", b.announce(ctx, c.second), context.DeadlineExceeded)
			cancel()
			b.withdraw()
		}
		second := start(func() error { return b.announce(t.Context(), c.second) })
		if c.waits {
			pending(t, second)
			a.withdraw()
		}
		must(t, finish(t, second))
		b.withdraw()
		a.withdraw()
	}
}

// A canceled announce does not stand at the gate after withdraw.
func TestCanceledAnnounceLeavesGate(t *testing.T) {
	a, b, probe := lockFilesAt(t, lockPath(t))
	for range 100 {
		must(t, a.announce(t.Context(), exclusive))
		ctx, cancel := context.WithCancel(t.Context())
		second := start(func() error { return b.announce(ctx, exclusive) })
		time.Sleep(100 * time.Microsecond)
		go cancel()
		a.withdraw()
		err := finish(t, second)
		if err != nil && err != context.Canceled {
			t.Fatal(err)
		}
		b.withdraw()
		if b.announced || taken(probe, exclusive) {
			t.Fatal("a process still stands at the gate")
		}
	}
}

// The lock of a slot does not have a gate.
func TestUnfairLockFileHasNoGate(t *testing.T) {
	path := lockPath(t)
	o, err := newOptions(nil)
	must(t, err)
	f, err := openLockFile(path, path, o, false)
	must(t, err)
	defer f.close()
	fair := lockFileAt(t, path)
	must(t, fair.announce(t.Context(), exclusive))
	must(t, f.try(t.Context(), exclusive))
	f.unlock()
	fair.withdraw()

	holder := lockFileAt(t, path)
	must(t, holder.try(t.Context(), exclusive))
	waiter := start(func() error { return f.wait(t.Context(), exclusive) })
	pending(t, waiter)
	if taken(fair, exclusive) {
		t.Error("a lock file without a gate stands at the gate")
	}
	holder.unlock()
	must(t, finish(t, waiter))
	f.unlock()
}

// A process at the gate of a file that was replaced stops no user of the new
// file.
func TestGateOfReplacedFileStopsNoProcess(t *testing.T) {
	if !byteLocks {
		t.Skip("the gate is a whole file, the same for both")
	}
	path := lockPath(t)
	waiter := lockFileAt(t, path)
	must(t, waiter.announce(t.Context(), exclusive))
	defer waiter.withdraw()
	remove(t, path)
	f := lockFileAt(t, path)
	must(t, f.try(t.Context(), exclusive))
	f.unlock()
}
