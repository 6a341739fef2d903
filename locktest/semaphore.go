package locktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

type semScene = scene[Semaphore]

func testSemaphore(t *testing.T, open func(name string, size int64) (Semaphore, error)) {
	s := func(size int64) *semScene {
		return &semScene{
			T:    t,
			kind: "Semaphore",
			size: size,
			open: open,
			far:  func(p *process) Semaphore { return farSemaphore{p} },
		}
	}
	t.Run("leaves no goroutines", func(t *testing.T) { semLeavesNoGoroutines(s(2).at(t)) }) // before the parallel ones
	s(3).everywhere("all units or none", allOrNone)
	s(3).run("units belong to nobody in particular", unitsOfNobody)
	s(1).run("a release happens before the acquire that needs it", unitsOrderMemory)
	s(3).run("never more units in use than there are", unitsInUse)
	s(2).everywhere("who waits is served when units are released", waiterIsServed)
	s(2).everywhere("who wants more than the size waits and holds up nobody", moreThanTheSize)
	s(0).everywhere("size zero", sizeZero)
	s(3).everywhere("to acquire nothing takes waiting in line", nothingWaits)
	s(3).everywhere("a context that has ended fails", semEnded)
	s(3).everywhere("a waiting one is not overtaken by tries", semTriesDoNotOvertake)
	s(3).everywhere("a waiting one is not overtaken by who needs less", lightDoesNotOvertake)
	s(2).run("who waits for one object is served in order", semOrder)
	s(3).run("light ones do not starve a heavy one", lightDoNotStarve)
	s(1).run("a busy line lets other processes in", busyLineLetsIn)
	s(2).run("who want everything do not wait for each other", noDeadlock)
	s(3).everywhere("a cancelled wait frees all that it had", cancelledFreesAll)
	s(2).everywhere("cancelled ones leave the line", cancelledLeaveTheLine)
	s(3).everywhere("an expired wait leaves nothing", semExpired)
	s(3).everywhere("a cancel races the release", cancelRacesRelease)
	s(5).run("killed process frees its units", killedFreesUnits)
	s(3).run("killed head of the queue leaves nothing", killedHead)
	s(3).run("killed at any moment", semKills)
	s(2).run("stopped process keeps its units", semStopped)
	s(4).run("the size is one for all", oneSize)
	s(4).run("a new size holds when nobody uses the old", newSize)
	s(3).run("different names are different semaphores", semNames)
	s(2).everywhere("misuse panics and changes nothing", semMisuse)
	s(2).run("Close", semClose)
}

// A farSemaphore is one in another process.
type farSemaphore struct{ p *process }

func (s farSemaphore) Acquire(ctx context.Context, n int64) error { return s.p.ask(ctx, "Acquire", n) }
func (s farSemaphore) TryAcquire(n int64) bool                    { return s.p.must("TryAcquire", n) == "true" }
func (s farSemaphore) Release(n int64)                            { s.p.must("Release", n) }
func (s farSemaphore) Close() error                               { return s.p.ask(context.Background(), "Close") }
func (s farSemaphore) Size() int64 {
	size, err := callFor[int64](context.Background(), s.p, "Size")
	if err != nil {
		panic(err)
	}
	return size
}

// acquire starts to acquire.
func acquire(ctx context.Context, s Semaphore, n int64) <-chan error {
	return start(func() error { return s.Acquire(ctx, n) })
}

// acquireAndRelease is what a waiter does who wants to see that it can.
func acquireAndRelease(s Semaphore, n int64) <-chan error {
	return start(func() error {
		err := s.Acquire(context.Background(), n)
		if err == nil {
			s.Release(n)
		}
		return err
	})
}

// has acquires units, which others may have in a moment.
func has(t *semScene, s Semaphore, n int64) {
	t.Helper()
	t.succeeds(acquire(context.Background(), s, n))
}

func release(t *semScene, s Semaphore, n int64) {
	t.Helper()
	t.do(func() { s.Release(n) })
}

// tries fails if a TryAcquire does not do as wanted.
func tries(t *semScene, s Semaphore, n int64, want bool) {
	t.Helper()
	if t.try(func() bool { return s.TryAcquire(n) }) != want {
		t.Fatalf("TryAcquire(%d) = %t", n, !want)
	}
}

// sized fails if s is of another size.
func sized(t *semScene, s Semaphore, want int64) {
	t.Helper()
	var size int64
	t.do(func() { size = s.Size() })
	if size != want {
		t.Errorf("Size() = %d, want %d", size, want)
	}
}

// refusesAll waits until who waits keeps s from getting n units that are free.
func refusesAll(t *semScene, s Semaphore, n int64) {
	t.Helper()
	t.closes(func() bool { return s.TryAcquire(n) }, func() { s.Release(n) })
}

func semLeavesNoGoroutines(t *semScene) {
	holder, s := t.here(), t.here()
	leavesNoGoroutines(t, func() {
		has(t, holder, 2)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var cancelled, others []<-chan error
		for i := range 10 {
			cancelled = append(cancelled, acquire(ctx, s, int64(1+i%3)))
			others = append(others, acquireAndRelease(s, int64(i%3)))
		}
		time.Sleep(10 * time.Millisecond)
		cancel()
		for _, c := range cancelled {
			t.ends(c, context.Canceled)
		}
		release(t, holder, 2)
		t.succeeds(others...)
	})
}

func allOrNone(t *semScene, a, b, c Semaphore) {
	for _, s := range []Semaphore{a, b, c} {
		sized(t, s, 3)
	}
	tries(t, b, 4, false)
	tries(t, a, 3, true)
	tries(t, b, 1, false)
	tries(t, c, 0, true)
	release(t, c, 0)
	release(t, a, 1)
	tries(t, b, 2, false)
	tries(t, c, 1, true) // nothing is left of the two
	tries(t, b, 1, false)
	release(t, a, 2)
	release(t, c, 1)
	has(t, b, 2)
	tries(t, a, 2, false)
	has(t, a, 1)
	tries(t, c, 1, false)
	release(t, b, 2)
	release(t, a, 1)
	tries(t, c, 3, true)
	release(t, c, 3)
}

func unitsOfNobody(t *semScene) {
	s, other := t.here(), t.here()
	has(t, s, 2) // each on a goroutine of its own
	has(t, s, 1)
	release(t, s, 1)
	tries(t, other, 1, true)
	tries(t, other, 1, false)
	release(t, s, 2)
	tries(t, other, 2, true)
	release(t, other, 3)
}

// A plain variable, so that the race detector sees it.
func unitsOrderMemory(t *semScene) {
	objects := []Semaphore{t.here(), t.here()}
	n := 0
	t.succeeds(start(func() error {
		return hammer(4, 50, func(i int) error {
			s := objects[i%len(objects)]
			if err := s.Acquire(context.Background(), 1); err != nil {
				return err
			}
			before := n
			time.Sleep(10 * time.Microsecond)
			n = before + 1
			s.Release(1)
			return nil
		})
	}))
	if n != 200 {
		t.Errorf("%d of 200 left", n)
	}
}

// unitStorm acquires at random, n times on each of 6 goroutines, all weights, half of the times with a context that soon
// ends, and books what it gets.
func unitStorm(s Semaphore, l ledger, n int) error {
	size := s.Size()
	return hammer(6, n, func(int) error {
		n := rand.Int64N(size + 1)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if rand.N(2) == 0 {
			ctx, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond))
		}
		defer cancel()
		if rand.N(8) == 0 {
			if !s.TryAcquire(n) {
				return nil
			}
		} else if err := s.Acquire(ctx, n); err != nil {
			return unlessRefused(ctx, false, err)
		}
		err := l.book(n)
		if rand.N(2) == 0 {
			time.Sleep(rand.N(300 * time.Microsecond))
		}
		err = errors.Join(err, l.book(-n))
		s.Release(n)
		return err
	})
}

func unitsInUse(t *semScene) {
	l := newLedger(t)
	const n = 80
	var calls []<-chan error
	var objects []Semaphore
	for range 2 {
		s, p := t.here(), t.process()
		objects = append(objects, s, t.far(p))
		calls = append(calls,
			start(func() error { return unitStorm(s, l, n) }),
			start(func() error { return p.ask(context.Background(), "unitStorm", l, n) }))
	}
	t.succeeds(calls...)
	if most, now, err := l.most(); err != nil || most > t.size || now != 0 {
		t.Errorf("of %d units, %d in use at once, %d in the end; %v", t.size, most, now, err)
	}
	for _, s := range objects { // none is lost
		has(t, s, 3)
		release(t, s, 3)
	}
}

func waiterIsServed(t *semScene, holder, first, second Semaphore) {
	has(t, holder, 1)
	has(t, holder, 1)
	waiters := []<-chan error{acquire(context.Background(), first, 1), acquire(context.Background(), second, 1)}
	t.waits(waiters...)
	release(t, holder, 2)
	t.succeeds(waiters...)
	tries(t, holder, 1, false)
	both := acquire(context.Background(), holder, 2)
	t.waits(both)
	release(t, first, 1)
	t.waits(both)
	release(t, second, 1)
	t.succeeds(both)
	release(t, holder, 2)
}

func moreThanTheSize(t *semScene, s, other, third Semaphore) {
	for _, busy := range []bool{false, true} {
		if busy {
			has(t, other, 1)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		expires, cancelExpires := context.WithTimeout(context.Background(), moment)
		defer cancelExpires()
		doomed, expired := acquire(ctx, s, 3), acquire(expires, s, 1<<40)
		t.waits(doomed)
		tries(t, third, 3, false)
		tries(t, third, 1, true)
		release(t, third, 1)
		if !busy {
			has(t, other, 2)
			release(t, other, 2)
			tries(t, s, 2, true)
			release(t, s, 2)
		}
		cancel()
		t.ends(doomed, context.Canceled)
		t.ends(expired, context.DeadlineExceeded)
	}
	release(t, other, 1)
	tries(t, s, 2, true)
	release(t, s, 2)
}

func sizeZero(t *semScene, s, other, third Semaphore) {
	tries(t, s, 0, true)
	tries(t, other, 1, false)
	has(t, other, 0)
	ctx, cancel := context.WithTimeout(context.Background(), moment)
	defer cancel()
	t.ends(acquire(ctx, third, 1), context.DeadlineExceeded)
	has(t, third, 0)
	release(t, third, 0)
}

func nothingWaits(t *semScene, holder, first, second Semaphore) {
	has(t, holder, 2)
	has(t, second, 0) // while nobody waits
	heavy := acquire(context.Background(), first, 2)
	refusesAll(t, second, 0)
	nothing := acquire(context.Background(), second, 0)
	t.waits(heavy, nothing)
	release(t, holder, 2)
	t.succeeds(heavy, nothing)
	release(t, first, 2)
}

func semEnded(t *semScene, a, b, c Semaphore) {
	fails := func(s Semaphore) {
		t.Helper()
		for _, ctx := range endedContexts() {
			for _, n := range []int64{0, 1, 3, 4} {
				t.ends(acquire(ctx, s, n), ctx.Err())
			}
		}
	}
	fails(a)
	fails(b)
	tries(t, b, 3, true)
	fails(a)
	fails(b)
	release(t, b, 3)
	tries(t, c, 3, true)
	release(t, c, 3)
}

func semTriesDoNotOvertake(t *semScene, holder, first, second Semaphore) {
	for range 3 {
		has(t, holder, 2)
		heavy := acquire(context.Background(), first, 3)
		refusesAll(t, second, 1)
		refusesAll(t, holder, 1)
		refusesAll(t, holder, 0)
		t.waits(heavy)
		// One after the other, all are for who waits.
		for range 2 {
			release(t, holder, 1)
			tries(t, holder, 1, false)
			tries(t, second, 1, false)
		}
		t.succeeds(heavy)
		release(t, first, 3)
	}
}

func lightDoesNotOvertake(t *semScene, holder, first, second Semaphore) {
	has(t, holder, 2)
	heavy := acquire(context.Background(), first, 2)
	refusesAll(t, second, 1)
	refusesAll(t, holder, 1)
	var light []<-chan error
	for _, s := range []Semaphore{holder, first, second} {
		light = append(light, acquire(context.Background(), s, 1))
	}
	t.waits(append(light, heavy)...)
	release(t, holder, 1)
	t.succeeds(heavy)
	release(t, first, 2)
	release(t, holder, 1)
	t.succeeds(light...)
	for _, s := range []Semaphore{holder, first, second} {
		release(t, s, 1)
	}
}

func semOrder(t *semScene) {
	s, far := t.here(), t.elsewhere()
	for _, holder := range []Semaphore{s, far} {
		inOrder(t, func() { has(t, holder, 2) }, func() { holder.Release(2) }, func(note func()) {
			if err := s.Acquire(context.Background(), 2); err != nil {
				panic(err)
			}
			note()
			s.Release(2)
		})
	}
}

// keepAcquiring has one unit at a time, on each of some goroutines.
func keepAcquiring(ctx context.Context, s Semaphore, goroutines int) {
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for s.Acquire(ctx, 1) == nil {
				time.Sleep(time.Millisecond)
				s.Release(1)
			}
		})
	}
	wg.Wait()
}

func lightDoNotStarve(t *semScene) { semTakesTurns(t, 2, 4) }
func busyLineLetsIn(t *semScene)   { semTakesTurns(t, 1, 8) }

// semTakesTurns acquires all units again and again, among processes whose goroutines acquire one.
func semTakesTurns(t *semScene, processes, goroutines int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var busy []<-chan error
	for range processes {
		p := t.process()
		busy = append(busy, startWith(ctx, func(ctx context.Context) error { return p.ask(ctx, "keepAcquiring", goroutines) }))
	}
	s := t.here()
	time.Sleep(moment)
	for range 20 {
		has(t, s, t.size)
		release(t, s, t.size)
	}
	cancel()
	t.succeeds(busy...)
}

// acquireAll acquires all units, n times.
func acquireAll(s Semaphore, n int) error {
	for range n {
		if err := s.Acquire(context.Background(), s.Size()); err != nil {
			return err
		}
		runtime.Gosched()
		s.Release(s.Size())
	}
	return nil
}

func noDeadlock(t *semScene) {
	const n = 200
	var calls []<-chan error
	for range 2 {
		s, p := t.here(), t.process()
		calls = append(calls,
			start(func() error { return acquireAll(s, n) }),
			start(func() error { return p.ask(context.Background(), "acquireAll", n) }))
	}
	t.succeeds(calls...)
}

func cancelledFreesAll(t *semScene, holder, first, second Semaphore) {
	has(t, holder, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	heavy := acquire(ctx, first, 3) // which may have two soon
	refusesAll(t, second, 1)
	light := acquire(context.Background(), second, 2)
	t.waits(heavy, light)
	cancel()
	t.ends(heavy, context.Canceled)
	t.succeeds(light)
	release(t, second, 2)
	release(t, holder, 1)
	has(t, holder, 3)
	release(t, holder, 3)
}

func cancelledLeaveTheLine(t *semScene, holder, first, second Semaphore) {
	for gives := range 3 { // which of three who wait
		has(t, holder, 2)
		var waiters []<-chan error
		var cancels []context.CancelFunc
		for _, s := range []Semaphore{first, first, second} {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			cancels = append(cancels, cancel)
			waiters = append(waiters, acquire(ctx, s, 1))
			time.Sleep(5 * time.Millisecond) // so that they come in order, most likely
		}
		t.waits(waiters...)
		cancels[gives]()
		t.ends(waiters[gives], context.Canceled)
		release(t, holder, 2)
		for i, s := range []Semaphore{first, first, second} {
			if i != gives {
				t.succeeds(waiters[i])
				release(t, s, 1)
			}
		}
	}
	has(t, second, 2)
	release(t, second, 2)
}

func semExpired(t *semScene, holder, first, second Semaphore) {
	has(t, holder, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	heavy, all := acquire(ctx, first, 3), acquire(ctx, second, 3)
	t.ends(heavy, context.DeadlineExceeded)
	t.ends(all, context.DeadlineExceeded)
	has(t, second, 2)
	release(t, second, 2)
	release(t, holder, 1)
	has(t, first, 3)
	release(t, first, 3)
}

func cancelRacesRelease(t *semScene, holder, first, second Semaphore) {
	for i := range 80 {
		has(t, holder, 2)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		heavy, behind := acquire(ctx, first, 3), acquireAndRelease(second, 1)
		time.Sleep(time.Duration(i%4) * 300 * time.Microsecond)
		go cancel()
		release(t, holder, 2)
		switch err := t.result(heavy); err {
		case nil:
			release(t, first, 3)
		case context.Canceled:
		default:
			t.Fatal(err)
		}
		t.succeeds(behind)
		has(t, first, 3) // nothing is lost
		release(t, first, 3)
	}
}

func killedFreesUnits(t *semScene) {
	s, p, other := t.here(), t.process(), t.elsewhere()
	has(t, t.far(p), 2)
	has(t, other, 1)
	has(t, s, 1)
	waiter := acquire(context.Background(), s, 3)
	t.waits(waiter)
	p.Kill()
	t.succeeds(waiter)
	tries(t, s, 1, false) // those and no others
	tries(t, other, 1, false)
	release(t, s, 4)
	tries(t, s, 4, true)
	tries(t, s, 1, false)
	release(t, s, 4)
	release(t, other, 1)
}

func killedHead(t *semScene) {
	s, p, other := t.here(), t.process(), t.elsewhere()
	has(t, s, 2)
	acquire(context.Background(), t.far(p), 3) // who may have one soon
	refusesAll(t, s, 1)
	light := acquire(context.Background(), other, 1)
	t.waits(light)
	p.Kill()
	t.succeeds(light)
	tries(t, s, 1, false)
	release(t, other, 1)
	release(t, s, 2)
	has(t, s, 3)
	release(t, s, 3)
}

func semKills(t *semScene) {
	s := t.here()
	var busy []*process
	for range 4 {
		p := t.process()
		start(func() error { return p.ask(context.Background(), "keepAcquiring", 3) })
		start(func() error { return p.ask(context.Background(), "acquireAll", 1<<30) })
		busy = append(busy, p)
	}
	for _, p := range busy {
		has(t, s, 2)
		release(t, s, 2)
		time.Sleep(rand.N(5 * time.Millisecond))
		p.Kill()
		has(t, s, 3)
		release(t, s, 3)
	}
	tries(t, s, 3, true)
	release(t, s, 3)
}

func semStopped(t *semScene) {
	if !canStop {
		t.Skip("processes cannot be stopped here")
	}
	s, p := t.here(), t.process()
	has(t, t.far(p), 1)
	p.stop()
	waiter := acquire(context.Background(), s, 2)
	t.waits(waiter)
	p.resume()
	t.waits(waiter)
	release(t, t.far(p), 1)
	t.succeeds(waiter)
	release(t, s, 2)
}

// openSized opens a semaphore of that size, if it can be had.
func openSized(t *semScene, size int64) (s Semaphore, err error) {
	t.Helper()
	err = t.outcome(start(func() (err error) {
		s, err = t.open(t.name, size)
		return err
	}))
	return s, err
}

func oneSize(t *semScene) {
	s := t.here()
	refused := func(size int64) {
		t.Helper()
		names := func(err error) {
			t.Helper()
			text := strings.ReplaceAll(err.Error(), t.name, "") // at random, it has the digits
			for _, n := range []int64{4, size} {
				if !regexp.MustCompile(fmt.Sprintf(`\b%d\b`, n)).MatchString(text) {
					t.Errorf("error %q, want one that names the sizes 4 and %d", err, size)
					return
				}
			}
		}
		if other, err := openSized(t, size); err == nil {
			t.shut(other)
			t.Errorf("size %d beside size 4", size)
		} else {
			names(err)
		}
		p, err := startProcess(t.T, t.kind, t.name, size)
		if err == nil {
			t.Errorf("size %d in another process beside size 4", size)
			p.Kill()
		} else {
			names(err)
		}
	}
	refused(3)
	refused(15)
	// Also while units are in use and waited for; it does not wait for that.
	has(t, s, 4)
	waiter := acquire(context.Background(), s, 1)
	t.waits(waiter)
	refused(0)
	t.here()
	t.process()
	release(t, s, 4)
	t.succeeds(waiter)
	release(t, s, 1)
}

func newSize(t *semScene) {
	for _, t.size = range []int64{4, 3, 12, 0, 1} {
		s, err := openSized(t, t.size)
		t.must(err)
		sized(t, s, t.size)
		tries(t, s, t.size+1, false)
		tries(t, s, t.size, true)
		release(t, s, t.size)
		t.must(t.shut(s))
	}
	t.size = 5
	p := t.process()
	sized(t, t.far(p), 5)
	has(t, t.far(p), 5)
	p.Kill()
	t.size = 2
	var err error
	defer func() {
		if err != nil {
			t.Log(err)
		}
	}()
	t.until("opened with another size than that of a dead process", func() bool {
		var s Semaphore
		if s, err = openSized(t, t.size); err == nil {
			t.must(t.shut(s))
		}
		return err == nil
	})
	s := t.here()
	tries(t, s, 3, false)
	tries(t, s, 2, true)
	release(t, s, 2)
}

func semNames(t *semScene) {
	s := t.here()
	t.name += "-other"
	other, third := t.elsewhere(), t.here()
	has(t, s, 3)
	tries(t, other, 2, true)
	tries(t, third, 2, false)
	tries(t, third, 1, true)
	release(t, other, 2)
	release(t, third, 1)
	release(t, s, 3)
}

func semMisuse(t *semScene, s, other, third Semaphore) {
	misuse := func(used int64) {
		t.Helper()
		t.panics("Acquire of -1", func() { s.Acquire(t.Context(), -1) })
		t.panics("TryAcquire of -1", func() { s.TryAcquire(-1) })
		t.panics("Release of -1", func() { s.Release(-1) })
		t.panics(fmt.Sprintf("Release of %d of %d", used+1, used), func() { s.Release(used + 1) })
	}
	misuse(0)
	has(t, s, 1)
	misuse(1)
	if s != other {
		has(t, other, 1)
		misuse(1) // the other's is not its own
		tries(t, third, 1, false)
		release(t, other, 1)
	}
	tries(t, third, 2, false)
	release(t, s, 1)
	tries(t, third, 2, true)
	release(t, third, 2)
	misuse(0)
}

func semClose(t *semScene) {
	s, other := t.here(), t.elsewhere()
	has(t, s, 1)
	if t.shut(s) == nil {
		t.Fatal("closed while units are in use")
	}
	tries(t, other, 2, false)
	release(t, s, 1)
	has(t, other, 1)
	waiter := acquire(context.Background(), s, 2)
	refusesAll(t, other, 1)
	if t.shut(s) == nil {
		t.Fatal("closed while waited for")
	}
	release(t, other, 1)
	t.succeeds(waiter)
	release(t, s, 2)

	t.must(t.shut(s))
	if err := t.shut(s); !errors.Is(err, fs.ErrClosed) {
		t.Error("closed twice: ", err)
	}
	for _, n := range []int64{0, 1, 2} {
		if err := t.result(acquire(context.Background(), s, n)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Acquire(%d) after Close: error %v, want one that matches fs.ErrClosed", n, err)
		}
	}
	t.panics("TryAcquire after Close", func() { s.TryAcquire(1) })
	again := t.here()
	tries(t, other, 2, true)
	tries(t, again, 1, false)
	release(t, other, 2)
}
