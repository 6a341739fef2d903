//go:build !interlock_bsd

package kernelwait

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/proclocks"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// These are short names for helpers that tests of several packages use.
var (
	must          = kit.Must
	start         = kit.Start
	finish        = kit.Finish
	waitFor       = kit.WaitFor
	noDescriptors = kit.NoDescriptors
)

const patience = kit.Patience

func descriptors(t testing.TB) int { return kit.Descriptors(t, "self") }

// A file is a file in its test's directory.
type file string

func newFile(t testing.TB) file {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	return file(path)
}

// open opens the file for the time of the test.
func (f file) open(t testing.TB) (fd int) {
	t.Helper()
	fd, err := unix.Open(string(f), unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// openAs opens the file for the time of the test, with a given number that is
// free.
func (f file) openAs(t testing.TB, number int) {
	t.Helper()
	fd, err := unix.Open(string(f), unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	if fd != number {
		must(t, unix.Dup3(fd, number, unix.O_CLOEXEC))
		unix.Close(fd)
	}
	t.Cleanup(func() { unix.Close(number) })
}

// locks returns how many locks on the file are held and waited for.
func (f file) locks(t testing.TB) (held, waiting int) {
	t.Helper()
	locks, err := proclocks.Of(string(f))
	must(t, err)
	for _, l := range locks {
		if l.Waiting {
			waiting++
		} else {
			held++
		}
	}
	return held, waiting
}

// waited waits until a call waits in the kernel for a lock on the file.
func (f file) waited(t testing.TB) {
	t.Helper()
	waitFor(t, "a call waits", func() bool { _, n := f.locks(t); return n > 0 })
}

// unused fails if there is a lock on the file in the end, or a call that waits.
func (f file) unused(t testing.TB) {
	t.Helper()
	if held, waiting := f.locks(t); held != 0 || waiting != 0 {
		t.Errorf("%d locks are held, and %d waited for", held, waiting)
	}
}

// isFree reports whether fd can lock its file, which it does not.
func isFree(t testing.TB, fd int) bool {
	t.Helper()
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && err != unix.EWOULDBLOCK {
		t.Fatal(err)
	}
	unix.Flock(fd, unix.LOCK_UN)
	return err == nil
}

// isHeld reports whether fd cannot lock its file, by flock(2) or by an open file
// description lock. The list of all locks could miss one of the latter, because
// it comes in pages and these locks have no PID.
func isHeld(t testing.TB, fd int) bool {
	t.Helper()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	must(t, unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l))
	return l.Type != unix.F_UNLCK || !isFree(t, fd)
}

// A lock is a blocking call, and its opposite.
type lock struct{ acquire, release func(fd int) error }

var locks = map[string]lock{
	"flock exclusive": {flock, unlock},
	"flock shared":    {func(fd int) error { return unix.Flock(fd, unix.LOCK_SH) }, unlock},
	"open file description lock": {
		func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		},
		func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
		},
	},
}

func flock(fd int) error  { return unix.Flock(fd, unix.LOCK_EX) }
func unlock(fd int) error { return unix.Flock(fd, unix.LOCK_UN) }

// holdAll acquires both kinds of lock, so that every one of locks blocks, and
// returns a function that releases them.
func holdAll(t testing.TB, fd int) (release func()) {
	t.Helper()
	must(t, flock(fd))
	must(t, locks["open file description lock"].acquire(fd))
	return func() {
		must(t, unlock(fd))
		must(t, locks["open file description lock"].release(fd))
	}
}

// variants are Do and Offload, as if they had one signature.
var variants = map[string]func(ctx context.Context, fd int, call func(fd int) error) error{
	"Do": Do,
	"Offload": func(ctx context.Context, fd int, call func(fd int) error) error {
		return offloaded(ctx, fd, false, call)
	},
	"Offload with retry": func(ctx context.Context, fd int, call func(fd int) error) error {
		return offloaded(ctx, fd, true, call)
	},
}

// offloaded is Offload of a call that is not abandoned.
func offloaded(ctx context.Context, fd int, retry bool, call func(fd int) error) error {
	late := func() { panic("late ran") }
	abandoned, err := Offload(ctx, fd, retry, call, late)
	if abandoned {
		panic("a call that can be interrupted was abandoned")
	}
	return err
}

// forAll runs the test with each of the variants and locks. However busy the
// machine, no call is abandoned.
func forAll(t *testing.T, test func(t *testing.T, do func(ctx context.Context, fd int, call func(fd int) error) error, l lock)) {
	t.Cleanup(offload.SetGrace(patience))
	for variant, do := range variants {
		for name, l := range locks {
			t.Run(variant+"/"+name, func(t *testing.T) { test(t, do, l) })
		}
	}
}

func TestWaitEndsWithTheHolder(t *testing.T) {
	forAll(t, func(t *testing.T, do func(ctx context.Context, fd int, call func(fd int) error) error, l lock) {
		for _, ctx := range []context.Context{context.Background(), t.Context()} {
			f := newFile(t)
			holder, fd := f.open(t), f.open(t)
			release := holdAll(t, holder)
			done := start(func() error { return do(ctx, fd, l.acquire) })
			f.waited(t)
			release()
			must(t, finish(t, done))
			// The copy is closed by now, and the lock belongs to fd.
			if !isHeld(t, holder) {
				t.Error("the lock is not held")
			}
			must(t, l.release(fd))
			f.unused(t)
		}
	})
}

func TestWaitEndsWithTheContext(t *testing.T) {
	forAll(t, func(t *testing.T, do func(ctx context.Context, fd int, call func(fd int) error) error, l lock) {
		f := newFile(t)
		holder, fd := f.open(t), f.open(t)
		release := holdAll(t, holder)
		for range 10 {
			ctx, cancel := context.WithCancel(t.Context())
			var result error
			done := start(func() error {
				return do(ctx, fd, func(fd int) error { result = l.acquire(fd); return result })
			})
			f.waited(t)
			cancel()
			if err := finish(t, done); err != context.Canceled {
				t.Fatal(err)
			}
			if result != unix.EBADF {
				t.Fatalf("the call returned %v, want EBADF", result)
			}
		}
		release()
		f.unused(t)
	})
}

func TestContextThatIsDone(t *testing.T) {
	forAll(t, func(t *testing.T, do func(ctx context.Context, fd int, call func(fd int) error) error, l lock) {
		f := newFile(t)
		holder, fd := f.open(t), f.open(t)
		release := holdAll(t, holder)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			if err := finish(t, start(func() error { return do(ctx, fd, l.acquire) })); err != context.Canceled {
				t.Fatal(err)
			}
		}
		release()
		f.unused(t)
	})
}

// Without a context that ends, nothing need be prepared. A call that is
// repeated needs a copy all the same.
func TestCopyIsMadeOnlyIfNeeded(t *testing.T) {
	t.Cleanup(offload.SetGrace(patience))
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		for variant, do := range variants {
			fd := newFile(t).open(t)
			var got int
			must(t, do(ctx, fd, func(fd int) error { got = fd; return nil }))
			wantCopy := ctx.Done() != nil || variant == "Offload with retry"
			if (got != fd) != wantCopy {
				t.Errorf("%s, %v: a copy was made: %t", variant, ctx, !wantCopy)
			}
			if _, err := unix.FcntlInt(uintptr(got), unix.F_GETFD, 0); (err != nil) != wantCopy {
				t.Errorf("%s, %v: the copy was closed: %t", variant, ctx, err != nil)
			}
		}
	}
}

// Handing a lock from one goroutine to another would take as long as the kernel
// needs to hand it from one process to another.
func TestDoCallsOnTheCallersGoroutine(t *testing.T) {
	fd := newFile(t).open(t)
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		runtime.LockOSThread()
		var tid int
		must(t, Do(ctx, fd, func(int) error { tid = unix.Gettid(); return nil }))
		if tid != unix.Gettid() {
			t.Error("another thread made the call")
		}
		runtime.UnlockOSThread()
	}
}

func TestErrorOfTheCall(t *testing.T) {
	fd := newFile(t).open(t)
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		for variant, do := range variants {
			calls := 0
			err := do(ctx, fd, func(int) error {
				if calls++; calls < 3 {
					return unix.EINTR
				}
				return unix.ENOLCK
			})
			if err != unix.ENOLCK || calls != 3 {
				t.Errorf("%s: %v after %d calls", variant, err, calls)
			}
		}
	}
}

// Whether a call that races with its context has acquired the lock is unknown.
// Afterwards the caller can undo it, and nothing comes later.
func TestGrantThatRacesWithTheContext(t *testing.T) {
	forAll(t, func(t *testing.T, do func(ctx context.Context, fd int, call func(fd int) error) error, l lock) {
		f := newFile(t)
		holder, fd := f.open(t), f.open(t)
		granted := 0
		for i := range 50 {
			release := holdAll(t, holder)
			ctx, cancel := context.WithCancel(t.Context())
			done := start(func() error { return do(ctx, fd, l.acquire) })
			f.waited(t)
			if i%2 == 0 {
				go cancel()
				release()
			} else {
				release()
				cancel()
			}
			err := finish(t, done)
			_, waiting := f.locks(t)
			switch {
			case waiting != 0:
				t.Fatal("a call waits that has ended")
			case err == nil && !isHeld(t, holder):
				t.Fatal("the lock is not held")
			case err == nil:
				granted++
			case err != context.Canceled:
				t.Fatal(err)
			}
			must(t, l.release(fd))
			f.unused(t)
			cancel()
		}
		t.Logf("%d of 50 acquired the lock", granted)
	})
}

func TestCancelsLeaveNothingBehind(t *testing.T) {
	forAll(t, func(t *testing.T, do func(ctx context.Context, fd int, call func(fd int) error) error, l lock) {
		f := newFile(t)
		holder := f.open(t)
		var fds []int
		for range 8 {
			fds = append(fds, f.open(t))
		}
		release := holdAll(t, holder)
		storm := func() {
			var wg sync.WaitGroup
			for _, fd := range fds {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := range 20 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
						if err := do(ctx, fd, l.acquire); err != context.DeadlineExceeded {
							t.Error(err)
						}
						cancel()
					}
				}()
			}
			wg.Wait()
		}
		storm() // the first wait opens a descriptor that is kept
		open, goroutines := descriptors(t), runtime.NumGoroutine()
		storm()
		waitFor(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
		waitFor(t, "descriptors are closed", func() bool { return descriptors(t) <= open })
		if n := Waits(); n != 0 {
			t.Errorf("%d waits are counted", n)
		}
		release()
		f.unused(t)
	})
}

func TestTooManyWaits(t *testing.T) {
	t.Cleanup(offload.SetGrace(patience))
	for variant, do := range variants {
		t.Run(variant, func(t *testing.T) {
			defer SetMaxWaits(2)()
			f := newFile(t)
			holder := f.open(t)
			release := holdAll(t, holder)
			ctx, cancel := context.WithCancel(t.Context())
			fd, canceled := f.open(t), f.open(t)
			waits := []<-chan error{
				start(func() error { return do(context.Background(), fd, flock) }),
				start(func() error { return do(ctx, canceled, flock) }),
			}
			waitFor(t, "two calls wait", func() bool { return Waits() == 2 })
			for _, ctx := range []context.Context{context.Background(), t.Context()} {
				call := func(int) error { t.Error("the call was made"); return nil }
				if err := do(ctx, f.open(t), call); err != ErrUnavailable {
					t.Error(err)
				}
			}
			cancel()
			if err := finish(t, waits[1]); err != context.Canceled {
				t.Error(err)
			}
			must(t, do(t.Context(), f.open(t), func(int) error { return nil }))
			release()
			must(t, finish(t, waits[0]))
			if n := Waits(); n != 0 {
				t.Errorf("%d waits are counted", n)
			}
		})
	}
}

func TestWithoutDescriptors(t *testing.T) {
	for variant, do := range variants {
		fd := newFile(t).open(t)
		restore := noDescriptors(t)
		err := do(t.Context(), fd, func(int) error { t.Error("the call was made"); return nil })
		direct := do(context.Background(), fd, func(int) error { return nil })
		restore()
		if err != ErrUnavailable {
			t.Errorf("%s: %v", variant, err)
		}
		if needsCopy := variant == "Offload with retry"; needsCopy && direct != ErrUnavailable || !needsCopy && direct != nil {
			t.Errorf("%s: %v", variant, direct)
		}
		if n := Waits(); n != 0 {
			t.Errorf("%s: %d waits are counted", variant, n)
		}
	}
}

// A call that does not return, whatever end does, is abandoned. It cannot lock
// the file any more, and late finds the copy closed.
func TestOffloadAbandonsCall(t *testing.T) {
	t.Cleanup(offload.SetGrace(5 * time.Millisecond))
	for _, retry := range []bool{false, true} {
		f := newFile(t)
		fd := f.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		answer, late, finished := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var result error
		var open []string
		abandoned, err := Offload(ctx, fd, retry, func(fd int) error {
			cancel()
			<-answer
			result = flock(fd)
			return result
		}, func() {
			open = f.descriptors(t)
			close(late)
			<-finished
		})
		if !abandoned || err != context.Canceled {
			t.Errorf("%t, %v, want true, context canceled", abandoned, err)
		}
		close(answer)
		finish(t, start(func() error { <-late; return nil }))
		if result != unix.EBADF {
			t.Errorf("the call returned %v, want EBADF", result)
		}
		if want := []string{fmt.Sprint(fd)}; !slices.Equal(open, want) {
			t.Errorf("descriptors %s are open, want %s", open, want)
		}
		if n := Waits(); n != 1 {
			t.Errorf("%d waits are counted while late runs", n)
		}
		close(finished)
		waitFor(t, "the wait is not counted", func() bool { return Waits() == 0 })
		f.unused(t)
	}
}

// descriptors returns the numbers by which the process has the file open.
func (f file) descriptors(t testing.TB) (numbers []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range entries {
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); target == string(f) {
			numbers = append(numbers, e.Name())
		}
	}
	return numbers
}

// After the call has returned, its thread runs other calls, and its number may
// be that of another file. A late cancel must leave both alone.
func TestCancelAfterTheReturn(t *testing.T) {
	f := newFile(t)
	w, err := newWait(f.open(t), false)
	must(t, err)
	must(t, w.run(func(int) error { return nil }))
	w.close()
	f.openAs(t, w.copy)
	w.cancel()
	if !isFree(t, w.copy) {
		t.Error("the file is locked")
	}
}

// Retry makes the kernel return to the call again and again. A call that
// returns when a signal arrives shows that.
func TestRetryInterruptsTheCall(t *testing.T) {
	fd := newFile(t).open(t)
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		calls := 0
		err := finish(t, start(func() error {
			return offloaded(ctx, fd, true, func(int) error {
				if calls++; calls > 4 {
					return nil
				}
				pause := unix.NsecToTimespec(int64(2 * patience))
				_, err := unix.Ppoll(nil, &pause, nil)
				return err
			})
		}))
		must(t, err)
	}
}

func TestJitter(t *testing.T) {
	lowest, highest := time.Hour, time.Duration(0)
	for range 1000 {
		d := jitter(time.Second)
		lowest, highest = min(lowest, d), max(highest, d)
	}
	if lowest < time.Second/2 || highest > time.Second || highest-lowest < time.Second/4 {
		t.Errorf("from %v to %v", lowest, highest)
	}
}
