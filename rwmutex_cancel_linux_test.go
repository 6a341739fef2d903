//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/kernelwait"
	"github.com/interlock-go/interlock/internal/proc"
)

func init() { children["crowd"] = crowd }

func TestCancelsLeaveNothingBehind(t *testing.T) {
	path := lockPath(t)
	holder, m := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	storm := func() {
		hammer(t, 8, 60, func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			defer cancel()
			if i%2 == 0 {
				if m.LockContext(ctx) == nil {
					t.Error("the lock has two holders")
				}
			} else if m.RLockContext(ctx) == nil {
				t.Error("a reader holds the lock beside a writer")
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	waiter := locking(ctx, m) // opens the descriptors that remain
	waitForWriter(t, m)
	cancel()
	if err := finish(t, waiter); err != context.Canceled {
		t.Error(err)
	}
	storm()
	fds, goroutines := descriptors(t, "self"), runtime.NumGoroutine()
	storm()
	waitFor(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	waitFor(t, "descriptors are closed", func() bool { return descriptors(t, "self") <= fds })
	if l := kernelLocks(t, path); len(l) != 1 || l[0].Kind != "FLOCK" {
		t.Errorf("the locks are %+v, want that of the holder", l)
	}
	holder.Unlock()
	if l := kernelLocks(t, path); len(l) != 0 {
		t.Errorf("the locks are %+v, want none", l)
	}
}

// crowd waits for a lock on many goroutines. It prints a line when all wait,
// and one when all are gone.
func crowd(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	n, _ := strconv.Atoi(args[1])
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if i%2 == 0 {
				m.LockContext(ctx)
			} else {
				m.RLockContext(ctx)
			}
		}()
	}
	for waitersOf(m) < n {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("waiting")
	bufio.NewReader(os.Stdin).ReadString('\n')
	cancel()
	wg.Wait()
	Must(0, m.Close())
	fmt.Println("gone")
}

func TestManyWaitersTakeFewThreadsAndNoCPU(t *testing.T) {
	needKernelWait(t)
	path := lockPath(t)
	holder := newMutex(t, path)
	holder.Lock()
	p := proc.Start("crowd", path, "500")
	t.Cleanup(p.Kill)
	p.Expect("waiting")
	pid := strconv.Itoa(p.Pid())
	time.Sleep(100 * time.Millisecond)
	if n := threadCount(t, pid); n > 15 {
		t.Errorf("%d threads", n)
	}
	// On a busy machine the process may still be starting. A process that polls
	// never has a quiet second.
	n := 0
	for range 5 {
		before := switches(t, pid)
		time.Sleep(time.Second)
		if n = switches(t, pid) - before; n <= 5 {
			break
		}
	}
	if n > 5 {
		t.Errorf("%d wake-ups in a second of waiting", n)
	}
	p.Ask("cancel", "gone")
	if l := kernelLocks(t, path); len(l) != 1 {
		t.Errorf("the locks are %+v, want that of the holder", l)
	}
	holder.Unlock()
}

// A wait that is canceled as it is granted has given the lock back when it
// returns.
func TestCanceledGrantIsGivenBack(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		holder := newMutex(t, path)
		for range rounds(100) {
			m, err := NewFileRWMutex(path)
			must(t, err)
			holder.Lock()
			ctx, cancel := context.WithCancel(t.Context())
			first := start(func() error { m.RLock(); cancel(); m.RUnlock(); return nil })
			waitFor(t, "a goroutine waits", func() bool { return waitersOf(m) == 1 })
			second := rlocking(ctx, m)
			waitFor(t, "two goroutines wait", func() bool { return waitersOf(m) == 2 })
			holder.Unlock()
			must(t, finish(t, first))
			if finish(t, second) == nil {
				m.RUnlock()
			}
			must(t, m.Close())
		}
	})
}

// Where the kernel cannot wait, a waiter polls.
func TestWaitersPollIfKernelCannotWait(t *testing.T) {
	needKernelWait(t)
	defer kernelwait.SetMaxWaits(0)()
	path := lockPath(t)
	m, p := newMutex(t, path, WithPollInterval(time.Millisecond, 2*time.Millisecond)), startLocker(t, path)
	for _, wait := range []func() error{
		func() error { m.Lock(); return nil },
		func() error { return m.LockContext(t.Context()) },
	} {
		p.Ask("lock", "lock ok")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if err := m.LockContext(ctx); err != context.DeadlineExceeded {
			t.Error(err)
		}
		cancel()
		waiter := start(wait)
		pending(t, waiter)
		p.Ask("unlock", "unlock ok")
		must(t, finish(t, waiter))
		m.Unlock()
	}
	p.Ask("lock", "lock ok")
	waiter := locking(t.Context(), m)
	pending(t, waiter)
	must(t, os.Remove(path))
	p.Ask("trylock", "trylock lock") // it holds the old file
	must(t, finish(t, waiter))       // the new file is free
	m.Unlock()
}
