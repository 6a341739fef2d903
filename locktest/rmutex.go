package locktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
)

type rScene = scene[RMutex]

func testRMutex(t *testing.T, open func(name string) (RMutex, error)) {
	s := &rScene{
		T:    t,
		kind: "RMutex",
		open: func(name string, _ int64) (RMutex, error) { return open(name) },
		far:  func(p *process) RMutex { return farRMutex{p: p} },
	}
	t.Run("leaves no goroutines", func(t *testing.T) { rLeavesNoGoroutines(s.at(t)) }) // before the parallel ones
	s.everywhere("its owner locks it again and others do not", reentrant)
	s.run("owners exclude each other", ownersExclude)
	s.run("processes exclude each other", ownersOfProcessesExclude)
	s.everywhere("another owner waits until the last unlock", otherOwnerWaits)
	s.run("goroutines of one owner get it together", ownerShares)
	s.run("who waits takes over from who gives up", takesOver)
	s.run("all of an owner give up", allGiveUp)
	s.everywhere("a cancelled wait leaves nothing", rCancelledLeavesNothing)
	s.everywhere("a cancel races the unlock", rCancelRacesUnlock)
	s.everywhere("a context that has ended fails", rEnded)
	s.run("objects of one name are one lock for an owner", objectsOfOneOwner)
	s.run("Depth does not wait", depthDoesNotWait)
	s.run("killed owner frees the lock", killedOwner)
	s.run("killed waiter leaves nothing", rKilledWaiter)
	s.run("stopped owner keeps the lock", rStoppedOwner)
	s.everywhere("misuse panics and changes nothing", rMisuse)
	s.run("Do", do)
	s.run("Do of several locks", doNested)
	s.run("Do waits and can be cancelled", doWaits)
	s.run("Do unlocks after a panic", doPanics)
	s.everywhere("Locker locks for its owner", locker)
	s.run("different names are different locks", rNames)
	s.run("Close", rClose)
}

// A farRMutex is one in another process, where each owner of this one stands for another one.
type farRMutex struct {
	RMutex // Do, which is not called there
	p      *process
}

func (m farRMutex) Lock(o interlock.Owner)               { m.p.must("Lock", o) }
func (m farRMutex) Unlock(o interlock.Owner)             { m.p.must("Unlock", o) }
func (m farRMutex) TryLock(o interlock.Owner) bool       { return m.p.must("TryLock", o) == "true" }
func (m farRMutex) Locker(o interlock.Owner) sync.Locker { return farLocker{m.p, o} }
func (m farRMutex) Close() error                         { return m.p.ask(context.Background(), "Close") }
func (m farRMutex) LockContext(ctx context.Context, o interlock.Owner) error {
	return m.p.ask(ctx, "LockContext", o)
}
func (m farRMutex) TryLockContext(ctx context.Context, o interlock.Owner) error {
	return m.p.ask(ctx, "TryLockContext", o)
}
func (m farRMutex) Depth(o interlock.Owner) int {
	depth, err := callFor[int](context.Background(), m.p, "Depth", o)
	if err != nil {
		panic(err)
	}
	return depth
}

type farLocker struct {
	p *process
	o interlock.Owner
}

func (l farLocker) Lock()   { l.p.must("lockerLock", l.o) }
func (l farLocker) Unlock() { l.p.must("lockerUnlock", l.o) }

func lockerLock(m RMutex, o interlock.Owner)   { m.Locker(o).Lock() }
func lockerUnlock(m RMutex, o interlock.Owner) { m.Locker(o).Unlock() }

// An owned is an RMutex with the owner who is to call it.
type owned struct {
	RMutex
	o interlock.Owner
}

func (m owned) lock()                                    { m.Lock(m.o) }
func (m owned) unlock()                                  { m.Unlock(m.o) }
func (m owned) tryLock() bool                            { return m.TryLock(m.o) }
func (m owned) lockContext(ctx context.Context) error    { return m.LockContext(ctx, m.o) }
func (m owned) tryLockContext(ctx context.Context) error { return m.TryLockContext(ctx, m.o) }
func (m owned) lockAndUnlock()                           { m.lock(); m.unlock() }

// owners gives each of some RMutexes an owner of its own.
func owners(a, b, c RMutex) (_, _, _ owned) {
	return owned{a, interlock.NewOwner()}, owned{b, interlock.NewOwner()}, owned{c, interlock.NewOwner()}
}

// deep fails if the owner has not locked m so often.
func deep(t *rScene, m owned, want int) {
	t.Helper()
	var depth int
	t.do(func() { depth = m.Depth(m.o) })
	if depth != want {
		t.Fatalf("depth %d, want %d", depth, want)
	}
}

func rLeavesNoGoroutines(t *rScene) {
	holder, m, other := owners(t.here(), t.here(), t.here())
	leavesNoGoroutines(t, func() {
		t.do(holder.lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var cancelled, others []<-chan error
		for range 10 {
			cancelled = append(cancelled, startWith(ctx, m.lockContext))
			others = append(others, starts(other.lockAndUnlock))
		}
		time.Sleep(10 * time.Millisecond)
		cancel()
		for _, c := range cancelled {
			t.ends(c, context.Canceled)
		}
		t.do(holder.unlock)
		t.succeeds(others...)
	})
}

func reentrant(t *rScene, holder, first, second RMutex) {
	m, a, b := owners(holder, first, second)
	t.do(m.lock, m.lock)
	t.grants(m.tryLock)
	t.succeeds(startWith(t.Context(), m.lockContext), startWith(t.Context(), m.tryLockContext))
	for depth := 5; depth > 0; depth-- {
		deep(t, m, depth)
		deep(t, a, 0)
		t.refuses(a.tryLock, b.tryLock)
		if err := t.result(startWith(t.Context(), b.tryLockContext)); !errors.Is(err, interlock.ErrLocked) {
			t.Errorf("error %v, want one that matches ErrLocked", err)
		}
		t.do(m.unlock)
	}
	deep(t, m, 0)
	t.grants(a.tryLock)
	deep(t, a, 1)
	t.refuses(m.tryLock)
	t.do(a.unlock)
}

// Owners with two goroutines each, some of which give up, on several objects; then with one each, and a plain
// variable, so that the race detector sees whether each unlock happens before the next owner's lock.
func ownersExclude(t *rScene) {
	objects := []RMutex{t.here(), t.here()}
	var owners []interlock.Owner
	for range 4 {
		owners = append(owners, interlock.NewOwner())
	}
	var mu sync.Mutex // between the goroutines of an owner
	inside := make(map[interlock.Owner]int)
	t.succeeds(start(func() error {
		return hammer(2*len(owners), 60, func(i int) error {
			m, o := objects[i%len(objects)], owners[i%len(owners)]
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if i >= len(owners) {
				time.AfterFunc(time.Duration(i)*50*time.Microsecond, cancel)
			}
			if err := m.LockContext(ctx, o); err != nil {
				return unlessCancelled(ctx, err)
			}
			defer m.Unlock(o)
			mu.Lock()
			inside[o]++
			alone := len(inside) == 1
			mu.Unlock()
			time.Sleep(10 * time.Microsecond)
			if !alone {
				return errors.New("two owners have the lock")
			}
			m.Lock(o)
			if m.Depth(o) < 2 {
				return fmt.Errorf("depth %d after a second lock", m.Depth(o))
			}
			m.Unlock(o)
			mu.Lock()
			defer mu.Unlock()
			if inside[o]--; inside[o] == 0 {
				delete(inside, o)
			}
			return nil
		})
	}))

	n := 0
	t.succeeds(start(func() error {
		return hammer(len(owners), 60, func(i int) error {
			m, o := objects[i%len(objects)], owners[i]
			m.Lock(o)
			defer m.Unlock(o)
			before := n
			time.Sleep(10 * time.Microsecond)
			n = before + 1
			return nil
		})
	}))
	if n != len(owners)*60 {
		t.Errorf("%d of %d left", n, len(owners)*60)
	}
}

func unlessCancelled(ctx context.Context, err error) error {
	if err == ctx.Err() {
		return nil
	}
	return err
}

// addNested adds to the counter, n times for each of 4 owners, under two locks of the owner.
func addNested(m RMutex, c counter, n int) error {
	var owners []interlock.Owner
	for range 4 {
		owners = append(owners, interlock.NewOwner())
	}
	return hammer(len(owners), n, func(i int) error {
		o := owners[i]
		m.Lock(o)
		m.Lock(o)
		m.Unlock(o)
		err := c.add()
		m.Unlock(o)
		return err
	})
}

func ownersOfProcessesExclude(t *rScene) {
	c := newCounter(t)
	m := t.here()
	const others, n = 3, 40
	calls := []<-chan error{start(func() error { return addNested(m, c, n) })}
	for range others {
		p := t.process()
		calls = append(calls, start(func() error { return p.ask(context.Background(), "addNested", c, n) }))
	}
	t.succeeds(calls...)
	t.wants(c, (1+others)*4*n)
}

func otherOwnerWaits(t *rScene, holder, first, second RMutex) {
	m, a, b := owners(holder, first, second)
	t.do(m.lock, m.lock)
	others := []<-chan error{starts(a.lockAndUnlock), starts(b.lockAndUnlock)}
	t.waits(others...)
	t.do(m.lock, m.unlock, m.unlock) // it is still its owner's, whoever waits
	t.waits(others...)
	t.do(m.unlock)
	t.succeeds(others...)
}

func ownerShares(t *rScene) {
	far, m, other := owners(t.elsewhere(), t.here(), t.here())
	t.do(far.lock)
	var waiters []<-chan error
	for range 3 {
		waiters = append(waiters, starts(m.lock))
	}
	t.waits(waiters...)
	deep(t, m, 0)
	t.refuses(m.tryLock)
	t.do(far.unlock)
	t.succeeds(waiters...)
	deep(t, m, 3)
	next, there := starts(other.lock), starts(far.lock)
	for range 3 {
		t.waits(next, there)
		t.do(m.unlock)
	}
	select {
	case err := <-next:
		t.must(err)
		t.do(other.unlock)
		t.succeeds(there)
		t.do(far.unlock)
	case err := <-there:
		t.must(err)
		t.do(far.unlock)
		t.succeeds(next)
		t.do(other.unlock)
	case <-time.After(patience):
		t.Fatal("both wait")
	}
}

func takesOver(t *rScene) {
	holder, m, _ := owners(t.elsewhere(), t.here(), nil)
	for gives := range 3 { // which of three who wait
		t.do(holder.lock)
		var waiters []<-chan error
		var cancels []context.CancelFunc
		for range 3 {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cancels = append(cancels, cancel)
			waiters = append(waiters, startWith(ctx, m.lockContext))
			time.Sleep(5 * time.Millisecond) // so that they come in order, most likely
		}
		t.waits(waiters...)
		cancels[gives]()
		t.ends(waiters[gives], context.Canceled)
		waiters = append(waiters[:gives], waiters[gives+1:]...)
		t.waits(waiters...)
		t.do(holder.unlock)
		t.succeeds(waiters...)
		deep(t, m, 2)
		t.do(m.unlock)
		t.refuses(holder.tryLock)
		t.do(m.unlock)
	}
	t.do(holder.lock, holder.unlock)
}

func allGiveUp(t *rScene) {
	holder, m, other := owners(t.elsewhere(), t.here(), t.here())
	t.do(holder.lock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var waiters []<-chan error
	for range 4 {
		waiters = append(waiters, startWith(ctx, m.lockContext))
	}
	behind := starts(other.lock)
	t.waits(append(waiters, behind)...)
	cancel()
	for _, w := range waiters {
		t.ends(w, context.Canceled)
	}
	t.waits(behind)
	t.do(holder.unlock)
	t.succeeds(behind)
	deep(t, m, 0)
	deep(t, other, 1)
	t.do(other.unlock)
	t.do(m.lock, m.unlock) // who gave up can lock later
}

func rCancelledLeavesNothing(t *rScene, holder, first, second RMutex) {
	m, a, b := owners(holder, first, second)
	t.do(m.lock, m.lock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cancelled, lives := startWith(ctx, a.lockContext), starts(b.lockAndUnlock)
	t.waits(cancelled, lives)
	cancel()
	t.ends(cancelled, context.Canceled)
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	t.ends(startWith(ctx, a.lockContext), context.DeadlineExceeded)
	deep(t, a, 0)
	deep(t, m, 2)
	t.waits(lives)
	t.do(m.unlock, m.unlock)
	t.succeeds(lives)
	t.do(a.lockAndUnlock, m.lockAndUnlock)
}

func rCancelRacesUnlock(t *rScene, holder, first, second RMutex) {
	m, a, _ := owners(holder, first, nil)
	b := owned{second, a.o} // the same, if in one process
	for i := range 40 {
		t.do(m.lock)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var waiters []<-chan error
		for _, w := range []owned{a, b} {
			waiters = append(waiters, startWith(ctx, func(ctx context.Context) error {
				if err := w.lockContext(ctx); err != nil {
					return err
				}
				w.unlock()
				return nil
			}))
		}
		time.Sleep(time.Duration(i%4) * 300 * time.Microsecond)
		go cancel()
		t.do(m.unlock)
		for _, w := range waiters {
			if err := t.result(w); err != nil && err != context.Canceled {
				t.Fatal(err)
			}
		}
		deep(t, a, 0)
		deep(t, b, 0)
	}
	t.do(m.lockAndUnlock)
}

func rEnded(t *rScene, holder, first, second RMutex) {
	m, a, b := owners(holder, first, second)
	fails := func(m owned, depth int) {
		t.Helper()
		for _, ctx := range endedContexts() {
			t.ends(startWith(ctx, m.lockContext), ctx.Err())
			t.ends(startWith(ctx, m.tryLockContext), ctx.Err())
			deep(t, m, depth)
		}
	}
	fails(m, 0)
	t.do(m.lock)
	fails(m, 1) // though it has the lock
	fails(a, 0)
	t.do(m.unlock)
	t.grants(b.tryLock)
	t.do(b.unlock)
}

func objectsOfOneOwner(t *rScene) {
	m, other, far := owners(t.here(), t.here(), t.elsewhere())
	same := owned{t.here(), m.o}
	t.do(m.lock, same.lock, m.lock) // none waits for another
	deep(t, m, 3)
	deep(t, same, 3)
	t.grants(same.tryLock)
	t.do(same.unlock)
	t.refuses(other.tryLock, far.tryLock)
	t.do(m.unlock, m.unlock)
	t.refuses(other.tryLock, far.tryLock)
	t.panics("Unlock of what another object has locked", m.unlock)
	deep(t, same, 1)
	t.do(same.unlock)
	t.grants(far.tryLock)
	// Owners of different processes differ, whatever they look like.
	for range 50 {
		t.refuses(owned{m, interlock.NewOwner()}.tryLock)
	}
	t.do(far.unlock)
}

func depthDoesNotWait(t *rScene) {
	holder, m, far := owners(t.here(), t.here(), t.elsewhere())
	t.do(holder.lock)
	waiters := []<-chan error{starts(m.lockAndUnlock), starts(far.lockAndUnlock)}
	t.waits(waiters...)
	deep(t, holder, 1)
	deep(t, m, 0)
	deep(t, far, 0)
	deep(t, owned{holder, interlock.Owner{}}, 0)
	t.do(holder.unlock)
	t.succeeds(waiters...)
}

func killedOwner(t *rScene) {
	p := t.process()
	dies, m, other := owners(t.far(p), t.here(), t.elsewhere())
	t.do(dies.lock, dies.lock)
	waiters := []<-chan error{starts(m.lockAndUnlock), starts(m.lockAndUnlock), starts(other.lockAndUnlock)}
	t.waits(waiters...)
	p.Kill()
	t.succeeds(waiters...)
}

func rKilledWaiter(t *rScene) {
	p := t.process()
	dies, m, other := owners(t.far(p), t.here(), t.elsewhere())
	t.do(m.lock)
	doomed := startWith(context.Background(), dies.lockContext)
	t.waits(doomed)
	behind := starts(other.lockAndUnlock)
	t.waits(behind)
	p.Kill()
	t.waits(behind)
	t.do(m.unlock)
	t.succeeds(behind)
}

func rStoppedOwner(t *rScene) {
	if !canStop {
		t.Skip("processes cannot be stopped here")
	}
	p := t.process()
	stopped, m, other := owners(t.far(p), t.here(), t.elsewhere())
	t.do(stopped.lock)
	p.stop()
	waiters := []<-chan error{starts(m.lockAndUnlock), starts(other.lockAndUnlock)}
	t.waits(waiters...)
	p.resume()
	t.waits(waiters...)
	t.do(stopped.unlock)
	t.succeeds(waiters...)
}

func rMisuse(t *rScene, holder, first, second RMutex) {
	m, a, b := owners(holder, first, second)
	zero := owned{holder, interlock.Owner{}}
	misuse := func(depth int) {
		t.Helper()
		t.panics("Unlock of an owner who has not locked", a.unlock)
		t.panics("Unlock of an owner who has not locked", owned{holder, a.o}.unlock)
		deep(t, m, depth)
		if _, far := holder.(farRMutex); far {
			return // there is no zero Owner to be sent
		}
		t.panics("Lock of the zero Owner", zero.lock)
		t.panics("TryLock of the zero Owner", func() { zero.tryLock() })
		t.panics("LockContext of the zero Owner", func() { zero.lockContext(t.Context()) })
		t.panics("TryLockContext of the zero Owner", func() { zero.tryLockContext(t.Context()) })
		t.panics("Unlock of the zero Owner", zero.unlock)
		t.panics("Locker of the zero Owner", func() { zero.Locker(zero.o).Lock() })
		deep(t, m, depth)
	}
	misuse(0)
	t.panics("Unlock of an unlocked one", m.unlock)
	t.do(m.lock)
	misuse(1)
	t.refuses(a.tryLock, b.tryLock)
	t.do(m.unlock)
	t.panics("Unlock after the last", m.unlock)
	t.grants(b.tryLock)
	t.do(b.unlock)
}

func do(t *rScene) {
	m, far, _ := owners(t.here(), t.elsewhere(), nil)
	failed := errors.New("failed")
	var outer interlock.Owner
	t.ends(start(func() error {
		return m.Do(context.Background(), func(ctx context.Context) error {
			outer, _ = interlock.OwnerFromContext(ctx)
			if outer == (interlock.Owner{}) || outer == m.o {
				return errors.New("not a new owner")
			}
			return m.Do(ctx, func(ctx context.Context) error {
				if inner, _ := interlock.OwnerFromContext(ctx); inner != outer {
					return errors.New("another owner inside")
				}
				if depth := m.Depth(outer); depth != 2 {
					return fmt.Errorf("depth %d inside", depth)
				}
				if far.tryLock() || m.tryLock() {
					return errors.New("not locked inside")
				}
				return failed
			})
		})
	}), failed)
	deep(t, owned{m, outer}, 0)
	t.grants(far.tryLock)
	t.do(far.unlock)

	// With an owner who has the lock already.
	t.do(m.lock)
	t.succeeds(start(func() error {
		return m.Do(interlock.ContextWithOwner(context.Background(), m.o), func(ctx context.Context) error {
			if o, _ := interlock.OwnerFromContext(ctx); o != m.o || m.Depth(o) != 2 {
				return fmt.Errorf("depth %d for the owner of the context", m.Depth(m.o))
			}
			return nil
		})
	}))
	deep(t, m, 1)
	t.refuses(far.tryLock)
	t.do(m.unlock)

	// Two calls without an owner are two owners.
	var last interlock.Owner
	t.succeeds(start(func() error {
		return m.Do(context.Background(), func(ctx context.Context) error {
			if last, _ = interlock.OwnerFromContext(ctx); last == outer {
				return errors.New("the owner of an earlier call")
			}
			return nil
		})
	}))
}

func doNested(t *rScene) {
	m := t.here()
	t.name += "-other"
	other := t.here()
	t.succeeds(start(func() error {
		return m.Do(context.Background(), func(ctx context.Context) error {
			o, _ := interlock.OwnerFromContext(ctx)
			err := other.Do(ctx, func(ctx context.Context) error {
				return m.Do(ctx, func(context.Context) error {
					if m.Depth(o) != 2 || other.Depth(o) != 1 {
						return fmt.Errorf("depths %d and %d", m.Depth(o), other.Depth(o))
					}
					return nil
				})
			})
			if err == nil && (m.Depth(o) != 1 || other.Depth(o) != 0) {
				return fmt.Errorf("depths %d and %d afterwards", m.Depth(o), other.Depth(o))
			}
			return err
		})
	}))
}

func doWaits(t *rScene) {
	m, far, _ := owners(t.here(), t.elsewhere(), nil)
	t.do(far.lock)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var called bool
	waits := startWith(ctx, func(ctx context.Context) error {
		return m.Do(ctx, func(context.Context) error { called = true; return nil })
	})
	t.waits(waits)
	cancel()
	t.ends(waits, context.Canceled)
	for _, ctx := range endedContexts() {
		t.ends(startWith(ctx, func(ctx context.Context) error {
			return m.Do(ctx, func(context.Context) error { called = true; return nil })
		}), ctx.Err())
	}
	if called {
		t.Error("called without the lock")
	}
	waits = start(func() error { return m.Do(context.Background(), func(context.Context) error { return nil }) })
	t.waits(waits)
	t.do(far.unlock)
	t.succeeds(waits)
}

func doPanics(t *rScene) {
	m, far, _ := owners(t.here(), t.elsewhere(), nil)
	value := new(int)
	for _, ctx := range []context.Context{context.Background(), interlock.ContextWithOwner(context.Background(), m.o)} {
		got := t.panics("Do of what panics", func() { m.Do(ctx, func(context.Context) error { panic(value) }) })
		if got != value {
			t.Errorf("panic %v, not that of the function", got)
		}
		deep(t, m, 0)
		t.grants(far.tryLock)
		t.do(far.unlock)
	}
}

func locker(t *rScene, holder, first, second RMutex) {
	m, a, b := owners(holder, first, second)
	l := m.Locker(m.o)
	t.do(l.Lock, l.Lock)
	deep(t, m, 2)
	t.do(l.Unlock)
	deep(t, m, 1)
	t.refuses(a.tryLock)
	waiter := starts(b.Locker(b.o).Lock)
	t.waits(waiter)
	t.do(m.unlock)
	t.succeeds(waiter)
	t.do(b.unlock)
	deep(t, m, 0)
}

func rNames(t *rScene) {
	a := t.here()
	t.name += "-other"
	m, other, third := owners(a, t.elsewhere(), t.here())
	t.do(m.lock)
	t.grants(other.tryLock)
	t.refuses(third.tryLock, owned{third, m.o}.tryLock)
	deep(t, owned{third, m.o}, 0)
	t.do(other.unlock, m.unlock)
}

func rClose(t *rScene) {
	m, other, far := owners(t.here(), t.here(), t.elsewhere())
	refused := func(m owned, when string) {
		t.Helper()
		if t.shut(m) == nil {
			t.Fatal("closed while ", when)
		}
	}
	t.do(m.lock, m.lock)
	refused(m, "locked twice")
	t.do(m.unlock)
	refused(m, "locked")
	waiter := starts(other.lock)
	t.waits(waiter)
	refused(other, "waited for")
	t.refuses(far.tryLock)
	t.do(m.unlock)
	t.succeeds(waiter)
	t.do(other.unlock)

	// An object does not care for others.
	t.do(other.lock)
	t.must(t.shut(m))
	t.refuses(far.tryLock)
	t.do(other.unlock)
	t.do(far.lock, far.unlock)

	if err := t.shut(m); !errors.Is(err, fs.ErrClosed) {
		t.Error("closed twice: ", err)
	}
	for name, call := range map[string]func(context.Context) error{
		"LockContext":    m.lockContext,
		"TryLockContext": m.tryLockContext,
		"Do": func(ctx context.Context) error {
			return m.Do(ctx, func(context.Context) error { return nil })
		},
	} {
		if err := t.result(startWith(t.Context(), call)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close: error %v, want one that matches fs.ErrClosed", name, err)
		}
	}
	for name, call := range map[string]func(){"Lock": m.lock, "TryLock": func() { m.tryLock() }} {
		if err, _ := t.panics(name+" after Close", call).(error); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after Close panics with %v, want an error that matches fs.ErrClosed", name, err)
		}
	}
	again := owned{t.here(), m.o}
	t.do(again.lock)
	t.refuses(far.tryLock)
	t.do(again.unlock)
}
