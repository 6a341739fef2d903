//go:build !interlock_bsd

package interlock

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/closewatch"
	"github.com/interlock-go/interlock/internal/kernelwait"
	"golang.org/x/sys/unix"
)

// withSpares returns a semaphore that has acquired units, and has a spare
// descriptor for the slot of each.
func withSpares(t *testing.T, name string, units, size int64) *FileSemaphore {
	t.Helper()
	s, waiter := newSemaphore(t, name, size), newSemaphore(t, name, size)
	if !isLocal(s) {
		t.Skip("no spare descriptors on a remote file system")
	}
	must(t, s.Acquire(t.Context(), units))
	must(t, waiter.gate.waiting.try(shared)) // as if it were the head
	s.Release(units)
	must(t, waiter.gate.waiting.unlock())
	time.Sleep(checkInterval)
	must(t, s.Acquire(t.Context(), units))
	for _, sl := range s.held {
		if sl.spare == nil {
			t.Fatal("no spare descriptor")
		}
	}
	return s
}

// noMoreDescriptors limits the descriptors of the process to those that it has.
func noMoreDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	free := Must(unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)) // the lowest free number
	unix.Close(free)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = uint64(free)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	restore = func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }
	t.Cleanup(restore)
	return restore
}

// Spare descriptors are closed when the process has no others for slot files.
// The spares may be those of slots that callers hold, or of idle slots.
func TestAcquireClosesSpareDescriptors(t *testing.T) {
	t.Run("held", func(t *testing.T) {
		s := withSpares(t, semName(t), 3, 5)
		s.Release(1)
		noMoreDescriptors(t)
		for range 3 {
			must(t, s.Acquire(t.Context(), 1))
		}
		s.Release(5)
	})
	t.Run("idle", func(t *testing.T) {
		name := semName(t)
		s, other := withSpares(t, name, 2, 3), newSemaphore(t, name, 3)
		s.Release(2)
		must(t, other.Acquire(t.Context(), 2))
		noMoreDescriptors(t)
		must(t, s.Acquire(t.Context(), 1))
		s.Release(1)
		other.Release(2)
	})
}

// A spare descriptor that was closed to wake a waiter is replaced when the slot
// is next acquired. All of them are closed with the semaphore.
func TestSpareDescriptorIsReplaced(t *testing.T) {
	name := semName(t)
	if !isLocal(newSemaphore(t, name, 1)) {
		t.Skip("no spare descriptors on a remote file system")
	}
	var fds, rounds int
	for i := range 3 {
		s, err := NewFileSemaphore(name, 1)
		must(t, err)
		other, err := NewFileSemaphore(name, 1)
		must(t, err)
		var last *closewatch.Spare
		for others := 0; others < 2; {
			must(t, s.Acquire(t.Context(), 1))
			switch spare := s.held[0].spare; {
			case spare == nil && last != nil:
				t.Fatal("no new spare descriptor")
			case spare != last:
				last = spare
				others++
			}
			w := acquiring(t.Context(), other, 1)
			becomesHead(t, other)
			s.Release(1) // uses the spare, unless the head looks at this very moment
			must(t, finish(t, w))
			other.Release(1)
			if rounds++; rounds > 1000 {
				t.Fatal("no spare descriptors")
			}
		}
		must(t, s.Close())
		must(t, other.Close())
		if i == 0 {
			fds = descriptors(t, "self")
		}
	}
	waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds })
}

func TestUnusedSpareDescriptorIsKept(t *testing.T) {
	s := withSpares(t, semName(t), 2, 2)
	first, second := s.held[0].spare, s.held[1].spare
	s.Release(2)
	must(t, s.Acquire(t.Context(), 2))
	for _, sl := range s.held {
		if sl.spare != first && sl.spare != second {
			t.Error("a slot has another spare descriptor, or none")
		}
	}
	s.Release(2)
}

// The spare descriptor must be one of the new file.
func TestReleaseWakesHeadAfterSlotReplaced(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), withSpares(t, name, 1, 1)
	other.Release(1)
	wakesHead(t, s, func() {
		must(t, os.Remove(s.slotPath(0)))
		must(t, other.Acquire(t.Context(), 1))
	}, func() { other.Release(1) })
}

// A process without a free descriptor closes the slot file itself.
func TestReleaseWithoutDescriptorsWakesHead(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	restore := func() {}
	wakesHead(t, s, func() {
		restore()
		must(t, other.Acquire(t.Context(), 1))
		other.held[0].dropSpare()
	}, func() {
		restore = noDescriptors(t)
		other.Release(1)
	})
	restore()
	wantTry(t, other, 1, true)
	other.Release(1)
}

// The head wakes when several units are released at once, even if it does not
// watch the slot file of the first or of the last: the file that it watches at
// that path is an older one, which its own process holds.
func TestReleaseOfManyWakesHead(t *testing.T) {
	needKernelWait(t)
	for _, unwatched := range []string{"first", "last"} {
		t.Run(unwatched, func(t *testing.T) {
			sleepLong(t)
			name := semName(t)
			s, other := newSemaphore(t, name, 2), newSemaphore(t, name, 2)
			if !isLocal(s) {
				t.Skip("the head polls on a remote file system")
			}
			s.opts.poll = neverPoll
			must(t, s.Acquire(t.Context(), 1))
			must(t, other.Acquire(t.Context(), 1))
			must(t, os.Remove(s.slotPath(0)))
			must(t, other.Acquire(t.Context(), 1))
			if other.held[1].file.path != s.slotPath(0) {
				t.Fatal("the slots are in another order")
			}
			if unwatched == "first" {
				slices.Reverse(other.held)
			}
			w := acquiring(t.Context(), s, 1)
			time.Sleep(asleep)
			must(t, finishSoon(t, w, func() { other.Release(2) }))
			s.Release(2)
		})
	}
}

// A release opens the slot file once more to wake the head. It must not open
// anything that has come to the path, such as a FIFO.
func TestReleaseOpensNoOtherFile(t *testing.T) {
	for _, what := range []string{"file replaced", "directory replaced"} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(tempDir(t), "dir")
			must(t, os.Mkdir(dir, 0o700))
			name := filepath.Join(dir, "sem")
			s, waiter := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
			wantTry(t, s, 1, true)
			s.Release(1)
			time.Sleep(2 * ctimeSettled)
			wantTry(t, s, 1, true)                   // the process has just looked at the path
			must(t, waiter.gate.waiting.try(shared)) // as if it were the head
			defer waiter.gate.waiting.unlock()
			path := s.slotPath(0)
			if what == "file replaced" {
				must(t, os.Remove(path))
			} else {
				must(t, os.Rename(dir, dir+".old"))
				must(t, os.Mkdir(dir, 0o700))
			}
			must(t, unix.Mkfifo(path, 0o600))
			opened := watchOpens(t, path)
			s.Release(1)
			if opened() {
				t.Error("the FIFO was opened")
			}
		})
	}
}

// The number of a slot file that was closed, because it could not be unlocked,
// may belong to any other file.
func TestReleaseOpensNoFileForClosedSlot(t *testing.T) {
	s := newSemaphore(t, semName(t), 1)
	sl := s.newSlot()
	s.slots--
	f := Must(sl.file.open(t.Context()))
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(fifo, 0o600))
	other := Must(unix.Open(fifo, unix.O_RDWR|unix.O_CLOEXEC, 0))
	must(t, unix.Dup3(other, f.descriptor(), unix.O_CLOEXEC)) // closes the slot file
	defer f.close()
	unix.Close(other)
	sl.file.dead = true
	opened := watchOpens(t, fifo)
	s.wakeWatchers(sl)
	if opened() {
		t.Error("the FIFO was opened")
	}
}

// watchOpens returns a function that reports whether the file was opened since.
func watchOpens(t *testing.T, path string) (opened func() bool) {
	t.Helper()
	inotify := Must(unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK))
	t.Cleanup(func() { unix.Close(inotify) })
	Must(unix.InotifyAddWatch(inotify, path, unix.IN_OPEN))
	return func() bool {
		n, err := unix.Read(inotify, make([]byte, 4096))
		if err != unix.EAGAIN {
			must(t, err)
		}
		return n > 0
	}
}

// A slot file that cannot be unlocked is closed instead, and is opened again
// for the next call.
func TestSlotThatCannotBeUnlockedIsClosed(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		name := semName(t)
		s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
		wantTry(t, s, 1, true)
		breakUnlock(t, s.held[0].file)
		s.Release(1)
		wantTry(t, other, 1, true)
		other.Release(1)
		wantTry(t, s, 1, true)
		s.Release(1)
	})
}

// The semaphore was the head of the queue before, and watched the old file.
func TestTryAcquireReturnsAfterSlotReplaced(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	must(t, other.Acquire(t.Context(), 1))
	w := acquiring(t.Context(), s, 1)
	becomesHead(t, s)
	other.Release(1)
	must(t, finish(t, w))
	s.Release(1)

	must(t, os.Remove(s.slotPath(0)))
	must(t, other.Acquire(t.Context(), 1))
	must(t, finish(t, start(func() error {
		if s.TryAcquire(1) {
			t.Error("acquired a unit that another holds")
		}
		return nil
	})))
	other.Release(1)
	wantTry(t, s, 1, true)
	s.Release(1)
}

// Files that are replaced are closed. No wait leaves a thread counted.
func TestReplacedFilesLeaveNoDescriptor(t *testing.T) {
	name := semName(t)
	s, other := newSemaphore(t, name, 1), newSemaphore(t, name, 1)
	var fds int
	for i := range 15 {
		must(t, s.Acquire(t.Context(), 1))
		w := acquiring(t.Context(), other, 1)
		becomesHead(t, other)
		s.Release(1)
		must(t, finish(t, w))
		other.Release(1)
		for _, suffix := range []string{".00.lock", ".gate.lock"} {
			must(t, os.Remove(name+suffix))
		}
		time.Sleep(checkInterval)
		// Two spare descriptors and two wakers may or may not be open.
		if n := descriptors(t, "self"); i == 2 {
			fds = n
		} else if i > 2 && n > fds+4 {
			t.Errorf("%d descriptors, were %d", n, fds)
		}
	}
	waitFor(t, "no thread waits", func() bool { return kernelwait.Waits() == 0 })
}

// The units that a process holds count, even if their slot files are gone. Only
// other processes can have units by the new files.
func TestUnitsOnRemovedSlotsCount(t *testing.T) {
	name := semName(t)
	s := newSemaphore(t, name, 2)
	wantTry(t, s, 2, true)
	for k := range int64(2) {
		must(t, os.Remove(s.slotPath(k)))
	}
	wantTry(t, s, 1, false)
	wantTry(t, s, 0, true)
	s.Release(2)
}
