//go:build !interlock_bsd

package kernelwait

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() { children["deaf"] = deaf }

// deaf makes calls that wait for a lock on a file, args[0], and cancels them,
// while the program ignores SIGURG as args[1] says. It prints the results.
func deaf(args []string) {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	offload.SetGrace(patience)
	for i := range 4 {
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error, 1)
		switch args[1] {
		case "before":
			signal.Ignore()
		case "early": // before the package was initialized
			signal.Ignore()
			runtimeHandler = swapSigaction(nil)
		case "SIG_DFL": // as C code may do, without the Go runtime
			swapSigaction(&sigaction{})
		case "SIG_IGN":
			swapSigaction(ignore())
		}
		go func() {
			if i%2 == 0 {
				result <- Do(ctx, fd, flock)
				return
			}
			result <- offloaded(ctx, fd, false, flock)
		}()
		fmt.Println("waiting")
		bufio.NewReader(os.Stdin).ReadString('\n')
		if args[1] == "while" {
			signal.Ignore(unix.SIGURG)
		}
		cancel()
		fmt.Println(<-result)
		if args[1] == "while" {
			signal.Reset()
		}
	}
	fmt.Println(Waits())
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// ignore returns a sigaction whose handler is SIG_IGN.
func ignore() *sigaction {
	if isMIPS {
		return &sigaction{0, 1}
	}
	return &sigaction{1}
}

func TestCancelWhileSIGURGIsIgnored(t *testing.T) {
	for _, when := range []string{"never", "early", "before", "while", "SIG_DFL", "SIG_IGN"} {
		t.Run(when, func(t *testing.T) {
			f := newFile(t)
			holder := f.open(t)
			must(t, flock(holder))
			p := proc.Start("deaf", string(f), when)
			t.Cleanup(p.Kill)
			for range 4 {
				p.Expect("waiting")
				f.waited(t)
				p.Ask("cancel", "context canceled")
			}
			p.Expect("0")
			must(t, unlock(holder))
			f.unused(t)
			must(t, p.Close())
		})
	}
}

func TestCancelBelowALoweredLimit(t *testing.T) {
	f := newFile(t)
	holder, fd := f.open(t), f.open(t)
	must(t, flock(holder))
	must(t, Do(t.Context(), fd, func(int) error { return nil })) // opens what is kept
	open := descriptors(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		done := start(func() error { return Do(ctx, fd, flock) })
		f.waited(t)
		restore := noDescriptors(t)
		cancel()
		if err := finish(t, done); err != context.Canceled {
			t.Error(err)
		}
		restore()
	}
	waitFor(t, "descriptors are closed", func() bool { return descriptors(t) <= open })
	must(t, unlock(holder))
	f.unused(t)
}

// Where the limit was lowered, cancel closes the copy. When the limit is
// raised, its number may become that of another file.
func TestCopyBelowALoweredLimitIsClosedOnce(t *testing.T) {
	f := newFile(t)
	holder, fd := f.open(t), f.open(t)
	must(t, flock(holder))
	w, err := newWait(fd, false)
	must(t, err)
	done := start(func() error { return w.run(flock) })
	f.waited(t)
	restore := noDescriptors(t)
	w.cancel()
	restore()
	if err := finish(t, done); err != unix.EBADF {
		t.Error(err)
	}
	if _, err := unix.FcntlInt(uintptr(w.copy), unix.F_GETFD, 0); err != unix.EBADF {
		t.Fatal("the copy was not closed: ", err)
	}
	f.openAs(t, w.copy)
	w.close()
	if _, err := unix.FcntlInt(uintptr(w.copy), unix.F_GETFD, 0); err != nil {
		t.Error("another file was closed: ", err)
	}
}

func TestCancelOnAThreadThatBlocksTheSignal(t *testing.T) {
	f := newFile(t)
	holder, fd := f.open(t), f.open(t)
	must(t, flock(holder))
	done := start(func() error {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var urgent, mask unix.Sigset_t
		urgent.Val[0] = 1 << (unix.SIGURG - 1)
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		err := Do(ctx, fd, flock)
		unix.PthreadSigmask(unix.SIG_BLOCK, nil, &mask)
		if mask.Val[0] != urgent.Val[0] {
			return errors.New("the mask of the thread was changed")
		}
		return err
	})
	if err := finish(t, done); err != context.DeadlineExceeded {
		t.Error(err)
	}
	must(t, unlock(holder))
	f.unused(t)
}
