package systemtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

func init() {
	children["visitor"] = visitor
	children["unit"] = unit
}

// handover is how long a lock may take from one client to another that waits
// for it, on a busy machine.
const handover = 20 * time.Second

func TestNFSExclusion(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		m, p := newMutex(t, path), remoteLocker(t, path)
		wantTries := func(lock, rlock bool) {
			t.Helper()
			if got := m.TryLock(); got != lock {
				t.Fatalf("TryLock = %t, want %t", got, lock)
			}
			if lock {
				m.Unlock()
			}
			if got := m.TryRLock(); got != rlock {
				t.Fatalf("TryRLock = %t, want %t", got, rlock)
			}
			if rlock {
				m.RUnlock()
			}
		}
		wantTries(true, true)
		p.Ask("lock", "lock ok")
		wantTries(false, false)
		for _, call := range []struct{ lock, unlock func() }{{m.Lock, m.Unlock}, {m.RLock, m.RUnlock}} {
			waiter := kit.Start(func() error { call.lock(); return nil })
			kit.Pending(t, waiter)
			took(t, "the lock comes from the other client", handover, func() {
				p.Ask("unlock", "unlock ok")
				kit.Must(t, kit.Finish(t, waiter))
			})
			p.Ask("trylock", "trylock lock ")
			call.unlock()
			p.Ask("lock", "lock ok")
		}
		p.Ask("unlock", "unlock ok")
		p.Ask("rlock", "rlock ok")
		wantTries(false, true)
		p.Ask("runlock", "runlock ok")
		m.RLock()
		p.Ask("trylock", "trylock lock ")
		p.Ask("tryrlock", "tryrlock ok")
		m.RUnlock()
		p.Ask("runlock", "runlock ok")
		wantTries(true, true)
	})
}

// alone makes one of n directories. It fails if other processes, on any
// machine, have made them all. The server makes directories, so no cache is
// involved.
func alone(prefix string, n int) (leave func(), err error) {
	for i := range n {
		dir := prefix + strconv.Itoa(i)
		if err = os.Mkdir(dir, 0o700); err == nil {
			return func() { os.Remove(dir) }, nil
		}
	}
	return nil, fmt.Errorf("more than %d: %w", n, err)
}

// stay checks for up to a millisecond that there are at most n such callers.
func stay(path string, n int) {
	leave, err := alone(path+".visitor", n)
	if err != nil {
		fmt.Println(err)
		return
	}
	time.Sleep(rand.N(time.Millisecond))
	leave()
}

// visitor locks often, and checks that it is alone. If it is impatient, it
// gives up many waits.
func visitor(args []string) {
	m := interlock.Must(interlock.NewFileRWMutex(args[0]))
	n, _ := strconv.Atoi(args[1])
	impatient := args[2] == "impatient"
	done := 0
	for range n {
		ctx, cancel := context.WithCancel(context.Background())
		if impatient {
			ctx, cancel = context.WithTimeout(ctx, rand.N(20*time.Millisecond))
		}
		err := m.LockContext(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			continue
		}
		interlock.Must(0, err)
		stay(args[0], 1)
		m.Unlock()
		done++
	}
	fmt.Println("visits", done)
}

// unit acquires one of two units often, and checks that there are no more.
func unit(args []string) {
	s := interlock.Must(interlock.NewFileSemaphore(args[0], 2))
	n := interlock.Must(strconv.Atoi(args[1]))
	for range n {
		interlock.Must(0, s.Acquire(context.Background(), 1))
		stay(args[0], 2)
		s.Release(1)
	}
	fmt.Println("visits", n)
}

// fourVisit starts two processes on each client, and returns how often they
// visited together.
func fourVisit(t *testing.T, name string, args ...string) (n int) {
	t.Helper()
	processes := []*proc.Process{
		startHere(t, name, args...), startHere(t, name, args...),
		startRemote(t, otherClient, name, args...), startRemote(t, otherClient, name, args...),
	}
	for _, p := range processes {
		n += visits(t, p)
	}
	return n
}

// visits waits for a process that visits, and returns how often it did.
func visits(t *testing.T, p *proc.Process) int {
	t.Helper()
	for {
		line, ok := p.Line(kit.Patience)
		if !ok {
			t.Fatal("a process still waits")
		}
		if n, ok := strings.CutPrefix(line, "visits "); ok {
			return interlock.Must(strconv.Atoi(n))
		}
		t.Error(line)
	}
}

// nfsVisits returns how often each process visits.
func nfsVisits() int {
	if longtest.Enabled() {
		return 40
	}
	return 10
}

func TestNFSOneHolderAtATime(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		want := nfsVisits()
		if n := fourVisit(t, "visitor", path, strconv.Itoa(want), "patient"); n != 4*want {
			t.Errorf("%d visits, want %d", n, 4*want)
		}
	})
}

func TestNFSCanceledWaitsLeaveNothingBehind(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		n := 4 * nfsVisits()
		t.Logf("%d of %d calls acquired the lock", fourVisit(t, "visitor", path, strconv.Itoa(n), "impatient"), 4*n)
		m := newMutex(t, path)
		took(t, "a lock after all that", handover, func() { kit.Must(t, kit.Finish(t, locking(t.Context(), m))) })
		m.Unlock()
	})
}

func TestNFSWaitingWriterStopsReaders(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		m, p, q := newMutex(t, path), remoteLocker(t, path), remoteLocker(t, path)
		p.Ask("rlock", "rlock ok")
		q.Ask("tryrlock", "tryrlock ok")
		q.Ask("runlock", "runlock ok")
		ctx, cancel := context.WithCancel(t.Context())
		writer := locking(ctx, m)
		waitForWriter(t, path)
		kit.Pending(t, writer)
		q.Ask("tryrlock", "tryrlock rlock ") // refused
		cancel()
		if err := kit.Finish(t, writer); err != context.Canceled {
			t.Error(err)
		}
		time.Sleep(kit.Moment)
		q.Ask("tryrlock", "tryrlock ok")
		q.Ask("runlock", "runlock ok")
		p.Ask("runlock", "runlock ok")
	})
}

func TestNFSCancel(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		m, p := newMutex(t, path), remoteLocker(t, path)
		p.Ask("lock", "lock ok")
		for _, lock := range []func(context.Context) error{m.LockContext, m.RLockContext, m.LockContext} {
			ctx, cancel := context.WithCancel(t.Context())
			waiter := kit.Start(func() error { return lock(ctx) })
			time.Sleep(100 * time.Millisecond)
			tookToCancel(t, waiter, cancel)
		}
		p.Ask("unlock", "unlock ok")
		took(t, "the lock is free", handover, func() { p.Ask("lock", "lock ok") })
		p.Ask("unlock", "unlock ok")
	})
}

// tookToCancel cancels a wait.
func tookToCancel(t *testing.T, waiter <-chan error, cancel context.CancelFunc) {
	t.Helper()
	took(t, "a cancel", 5*time.Second, func() {
		cancel()
		if err := kit.Finish(t, waiter); err != context.Canceled {
			t.Error(err)
		}
	})
}

func TestNFSKilledHolderReleases(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		for _, mode := range []string{"lock", "rlock"} {
			m, p := newMutex(t, path), remoteLocker(t, path)
			p.Ask(mode, mode+" ok")
			waiter := locking(t.Context(), m)
			kit.Pending(t, waiter)
			took(t, "the lock comes from a killed process", handover, func() {
				p.Kill()
				kit.Must(t, kit.Finish(t, waiter))
			})
			m.Unlock()
		}
	})
}

func TestNFSRemovedFileIsNoticed(t *testing.T) {
	onNFS(t, func(t *testing.T, path string) {
		m, p, q := newMutex(t, path), remoteLocker(t, path), remoteLocker(t, path)
		p.Ask("lock", "lock ok")
		q.Ask("trylock", "trylock lock ")
		kit.Must(t, os.Remove(path))
		took(t, "this client notices the removal", handover, m.Lock)
		begin := time.Now()
		for {
			q.Say("trylock")
			line, _ := q.Line(kit.Patience)
			if line != "trylock ok" {
				break
			}
			q.Ask("unlock", "unlock ok")
			if time.Since(begin) > 65*time.Second {
				t.Fatal("the other client does not notice the removal")
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Logf("the other client notices the removal: %v", time.Since(begin).Round(time.Millisecond))
		m.Unlock()
		p.Ask("unlock", "unlock ok")
		took(t, "the other client locks the new file", handover, func() { q.Ask("trylock", "trylock ok") })
		if m.TryLock() {
			t.Error("the lock has two holders")
		}
		q.Ask("unlock", "unlock ok")
	})
}

func TestNFSSemaphore(t *testing.T) {
	onNFS(t, func(t *testing.T, name string) {
		want := nfsVisits()
		if n := fourVisit(t, "unit", name, strconv.Itoa(want)); n != 4*want {
			t.Errorf("%d visits, want %d", n, 4*want)
		}
		s, p := newSemaphore(t, name, 2), startRemote(t, otherClient, "acquirer", name, "2")
		p.Expect("ready")
		p.Ask("acquire 2", "acquire 2 ok")
		wantTry(t, s, 1, false)
		ctx, cancel := context.WithCancel(t.Context())
		waiter := acquiring(ctx, s, 1)
		time.Sleep(100 * time.Millisecond)
		tookToCancel(t, waiter, cancel)
		waiter = acquiring(t.Context(), s, 2)
		kit.Pending(t, waiter)
		took(t, "units come from a killed process", handover, func() {
			p.Kill()
			kit.Must(t, kit.Finish(t, waiter))
		})
		s.Release(2)
	})
}
