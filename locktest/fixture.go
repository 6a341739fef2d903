package locktest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// timeout is how long a test waits for an event that must happen. Only a broken
// lock takes that long, however slow the machine is.
var timeout = 60 * time.Second

// watchTime is how long a test watches that an event does not happen. It is long
// enough to see nearly every mistake.
const watchTime = 50 * time.Millisecond

// A fixture is a test with a lock of its own, which it can open in this process
// and in other processes.
//
// The methods of a fixture fail the test where a broken lock would block them
// forever.
type fixture[L lock] struct {
	*testing.T
	kind    string                                   // "RWMutex", "RMutex" or "Semaphore"
	name    string                                   // of the lock
	size    int64                                    // of a semaphore
	newLock func(name string, size int64) (L, error) // opens a lock in this process
	remote  func(*process) L                         // returns a lock whose calls run in another process
}

type lock interface{ Close() error }

// run runs test as a parallel subtest with a lock of its own.
func (t *fixture[L]) run(name string, test func(t *fixture[L])) {
	t.Run(name, func(tt *testing.T) {
		tt.Parallel()
		test(t.sub(tt))
	})
}

// sub returns a fixture for the subtest tt, with a lock of its own.
func (t *fixture[L]) sub(tt *testing.T) *fixture[L] {
	tt.Helper()
	// Some file systems, such as NFS, cannot remove a directory right after the
	// test. That is no failure here, but would be one of tt.TempDir.
	dir, err := os.MkdirTemp("", "locktest-*")
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		tt.Fatal(err)
	}
	tt.Cleanup(func() { os.RemoveAll(dir) })
	sub := *t
	sub.T, sub.name = tt, filepath.Join(dir, "lock")
	return &sub
}

// A layout says where the participants of a test are: the holder of the lock,
// and two others. Participants in one process may use one object.
type layout[L lock] struct {
	name string
	open func(t *fixture[L]) (holder, first, second L)
}

func layouts[L lock]() []layout[L] {
	return []layout[L]{
		{"OneObject", func(t *fixture[L]) (_, _, _ L) {
			l := t.open()
			return l, l, l
		}},
		{"OneProcess", func(t *fixture[L]) (_, _, _ L) { return t.open(), t.open(), t.open() }},
		{"HeldRemotely", func(t *fixture[L]) (_, _, _ L) {
			l := t.open()
			return t.openRemote(), l, l
		}},
		{"WaitingRemotely", func(t *fixture[L]) (_, _, _ L) {
			l := t.openRemote()
			return t.open(), l, l
		}},
		{"ThreeProcesses", func(t *fixture[L]) (_, _, _ L) { return t.open(), t.openRemote(), t.openRemote() }},
	}
}

// runLayouts runs test in every layout, each time with a lock of its own.
func (t *fixture[L]) runLayouts(name string, test func(t *fixture[L], holder, first, second L)) {
	t.Run(name, func(tt *testing.T) {
		tt.Parallel()
		group := *t
		group.T = tt
		for _, l := range layouts[L]() {
			group.run(l.name, func(t *fixture[L]) {
				holder, first, second := l.open(t)
				test(t, holder, first, second)
			})
		}
	})
}

// open opens the lock in this process. When the test ends, Close must succeed
// or must have been called before.
func (t *fixture[L]) open() L {
	t.Helper()
	var l L
	t.succeeds(start(func() (err error) {
		l, err = t.newLock(t.name, t.size)
		return err
	}))
	t.Cleanup(func() {
		select {
		case err := <-start(l.Close):
			if err != nil && !errors.Is(err, fs.ErrClosed) && !t.Failed() {
				t.Error("left in use:", err)
			}
		case <-time.After(timeout):
			t.Error("Close blocks")
		}
	})
	return l
}

// openRemote opens the lock in another process.
func (t *fixture[L]) openRemote() L {
	t.Helper()
	return t.remote(t.process())
}

// process starts another process that opens the lock.
func (t *fixture[L]) process() *process {
	t.Helper()
	p, err := startProcess(t.T, t.kind, t.name, t.size)
	t.must(err)
	return p
}

// must ends the test if err is not nil.
func (t *fixture[L]) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
