package interlock

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
)

// recorder collects the calls of hooks, as text.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) add(info TraceInfo, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	event := fmt.Sprintf(format, args...)
	if info.Shared {
		event += " shared"
	}
	if info.Units != 1 {
		event += fmt.Sprint(" ", info.Units)
	}
	r.events = append(r.events, event)
}

// after describes how long a wait took, roughly.
func after(d time.Duration) string {
	switch {
	case d < 0:
		return "negative"
	case d == 0:
		return "at once"
	case d < moment/2:
		return "soon"
	}
	return "late"
}

func (r *recorder) trace(t *testing.T, path string) *Trace {
	check := func(info TraceInfo) {
		if info.Path != path {
			t.Errorf("path %s, want %s", info.Path, path)
		}
	}
	return &Trace{
		WaitStart: func(i TraceInfo) { check(i); r.add(i, "waits") },
		Acquired:  func(i TraceInfo, d time.Duration) { check(i); r.add(i, "acquired %s", after(d)) },
		Abandoned: func(i TraceInfo, d time.Duration, err error) { check(i); r.add(i, "abandoned %s: %v", after(d), err) },
		Released: func(i TraceInfo, d time.Duration) {
			check(i)
			if d < 0 || d > patience {
				t.Errorf("held for %v", d)
			}
			r.add(i, "released")
		},
	}
}

// want checks the calls of hooks since it was last called.
func (r *recorder) want(t *testing.T, events ...string) {
	t.Helper()
	r.wait(t, events)
	if !slices.Equal(r.events, events) {
		t.Errorf("got  %q\nwant %q", r.events, events)
	}
	r.events = nil
}

// wantUnordered is want for hooks that several goroutines call at once.
func (r *recorder) wantUnordered(t *testing.T, events ...string) {
	t.Helper()
	r.wait(t, events)
	slices.Sort(r.events)
	r.want(t, events...)
}

// wait waits until there were so many calls.
func (r *recorder) wait(t *testing.T, events []string) {
	t.Helper()
	waitFor(t, fmt.Sprint(events), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.events) >= len(events)
	})
}

func TestTraceOfRWMutex(t *testing.T) {
	path := lockPath(t)
	var r recorder
	m, holder := newMutex(t, path, WithTrace(r.trace(t, path))), newMutex(t, path)
	m.Lock()
	m.Unlock()
	if !m.TryRLock() || m.TryLock() {
		t.Fatal("TryRLock failed, or TryLock succeeded beside it")
	}
	m.RUnlock()
	r.want(t, "acquired at once", "released", "acquired at once shared", "released shared")
	holder.Lock()
	w := start(func() error { return m.LockContext(t.Context()) })
	pending(t, w)
	r.want(t, "waits")
	holder.Unlock()
	must(t, finish(t, w))
	m.Unlock()
	r.want(t, "acquired late", "released")
	holder.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), moment)
	defer cancel()
	m.RLockContext(ctx)
	r.want(t, "waits shared", "abandoned late: context deadline exceeded shared")
	if m.LockContext(ctx) == nil {
		t.Error("locked with a context that is done")
	}
	r.want(t)
	holder.Unlock()
}

func TestTraceOfRMutex(t *testing.T) {
	path := lockPath(t)
	var r recorder
	m, err := NewFileRMutex(path, WithTrace(r.trace(t, path)))
	must(t, err)
	defer m.Close()
	a, b := NewOwner(), NewOwner()
	m.Lock(a)
	m.Lock(a)
	m.Depth(a)
	r.want(t, "acquired at once")
	waiters := []<-chan error{start(func() error { return m.LockContext(t.Context(), b) })}
	following(t, m, b, 1)
	waiters = append(waiters, start(func() error { return m.LockContext(t.Context(), b) }))
	following(t, m, b, 2)
	r.want(t, "waits", "waits")
	time.Sleep(moment)
	m.Unlock(a)
	r.want(t)
	m.Unlock(a)
	for _, w := range waiters {
		must(t, finish(t, w))
	}
	r.wantUnordered(t, "acquired late", "acquired late", "released")
	m.Unlock(b)
	r.want(t)
	m.Unlock(b)
	r.want(t, "released")
}

func TestTraceOfSemaphore(t *testing.T) {
	name := semName(t)
	var r recorder
	var held []time.Duration
	trace := r.trace(t, name)
	released := trace.Released
	trace.Released = func(i TraceInfo, d time.Duration) { held = append(held, d); released(i, d) }
	s := newSemaphore(t, name, 3, WithTrace(trace))
	must(t, s.Acquire(t.Context(), 2))
	time.Sleep(moment)
	wantTry(t, s, 1, true)
	wantTry(t, s, 1, false)
	r.want(t, "acquired at once 2", "acquired at once")
	w := acquiring(t.Context(), s, 2)
	pending(t, w)
	s.Release(2)
	must(t, finish(t, w))
	r.wantUnordered(t, "acquired late 2", "released 2", "waits 2")
	s.Release(1)
	s.Release(2)
	r.want(t, "released", "released 2")
	if !(held[0] >= 2*moment && held[1] >= moment && held[1] < held[0]) {
		t.Errorf("held for %v", held)
	}
}

// Each of two objects for one path reports what is done through it, with the
// path that it was created with.
func TestTraceOfTwoRMutexes(t *testing.T) {
	path := lockPath(t)
	t.Chdir(filepath.Dir(path))
	var r, s recorder
	first, err := NewFileRMutex(path, WithTrace(r.trace(t, path)))
	must(t, err)
	defer first.Close()
	second, err := NewFileRMutex(filepath.Base(path), WithTrace(s.trace(t, filepath.Base(path))))
	must(t, err)
	defer second.Close()
	a, b := NewOwner(), NewOwner()
	second.Lock(a)
	r.want(t)
	s.want(t, "acquired at once")
	first.Lock(a)
	first.Lock(a)
	r.want(t, "acquired at once")
	w := start(func() error { return second.LockContext(t.Context(), b) })
	following(t, second, b, 1)
	s.want(t, "waits")
	second.Unlock(a)
	s.want(t, "released")
	first.Unlock(a)
	r.want(t)
	pending(t, w)
	first.Unlock(a)
	must(t, finish(t, w))
	r.want(t, "released")
	second.Unlock(b)
	s.wantUnordered(t, "acquired late", "released")
	r.want(t)
}

// Units are released in the order in which they were acquired. The tracer
// forgets those that are released.
func TestTracerForgetsReleasedUnits(t *testing.T) {
	tr := newTracer(&Trace{}, "")
	begin := time.Now()
	tr.hold(5)
	tr.hold(3)
	for i := range tr.holds {
		tr.holds[i].since = begin.Add(-time.Duration(2-i) * time.Hour)
	}
	for i, want := range []time.Duration{2, 2, 2, 1} {
		if got := tr.end(2).Truncate(time.Hour); got != want*time.Hour {
			t.Errorf("release %d: held for %v, want %v hours", i, got, int(want))
		}
	}
	if tr.end(1) != 0 {
		t.Error("units are held after all were released")
	}
	for range 1000 {
		tr.hold(2)
		tr.end(1)
	}
	for range 10_000 {
		tr.hold(1)
		tr.end(1)
	}
	if n := len(tr.holds) - tr.ended; n != 1000 || cap(tr.holds) > 4*n {
		t.Errorf("%d holds with capacity %d, want 1000 and little more", n, cap(tr.holds))
	}
}

// A tracedPair locks and unlocks a lock of one type.
type tracedPair struct {
	name string
	pair func()
}

// tracedPairs returns a pair for each type of lock. quick reports whether they
// need no more than the fewest system calls on this file system.
func tracedPairs(t testing.TB, trace *Trace) (pairs []tracedPair, quick bool) {
	m, s := newMutex(t, lockPath(t), WithTrace(trace)), newSemaphore(t, semName(t), 1, WithTrace(trace))
	r, err := NewFileRMutex(lockPath(t), WithTrace(trace))
	must(t, err)
	t.Cleanup(func() { r.Close() })
	if none := trace == nil; (m.trace == nil) != none || (s.trace == nil) != none || (r.trace == nil) != none {
		t.Error("a lock has a tracer without a trace, or none with one")
	}
	o := NewOwner()
	pairs = []tracedPair{
		{"FileRWMutex", func() { m.Lock(); m.Unlock() }},
		{"FileRMutex", func() { r.Lock(o); r.Unlock(o) }},
		{"FileSemaphore", func() { s.Acquire(context.Background(), 1); s.Release(1) }},
	}
	for _, p := range pairs {
		p.pair() // creates the files
	}
	time.Sleep(2 * ctimeSettled) // until then, the files are too new
	coarse := m.file.known%int64(time.Second) == 0
	return pairs, m.file.file.local && !coarse
}

func TestNoAllocationWithoutTrace(t *testing.T) {
	pairs, quick := tracedPairs(t, nil)
	for _, p := range pairs {
		if n := testing.AllocsPerRun(1000, p.pair); n != 0 && quick {
			t.Errorf("%s: %v allocations", p.name, n)
		}
	}
}

func BenchmarkTrace(b *testing.B) {
	for what, trace := range map[string]*Trace{"absent": nil, "empty": {}} {
		pairs, _ := tracedPairs(b, trace)
		for _, p := range pairs {
			b.Run(p.name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p.pair()
				}
			})
		}
	}
}

// The time of a hold is that of the same hold, even if others follow at once.
func TestTraceReportsTimeOfHold(t *testing.T) {
	var r sync.Mutex
	worst := time.Duration(0)
	trace := &Trace{Released: func(_ TraceInfo, d time.Duration) {
		r.Lock()
		defer r.Unlock()
		if d < 0 {
			t.Errorf("held for %v", d)
		}
		worst = max(worst, d)
	}}
	m := newMutex(t, lockPath(t), WithTrace(trace))
	times := 200
	if longtest.Enabled() {
		times = 2000
	}
	hammer(t, 8, times, func(int) { m.Lock(); m.Unlock() })
	other := newMutex(t, m.Path())
	for _, waits := range []bool{false, true} {
		worst = 0
		if waits {
			other.Lock()
			time.AfterFunc(moment, other.Unlock)
		}
		m.Lock()
		time.Sleep(moment)
		m.Unlock()
		if worst < moment {
			t.Errorf("held for %v, want %v; waits: %t", worst, moment, waits)
		}
	}
}

// Hooks may use the lock that they report, and others.
func TestHooksMayLock(t *testing.T) {
	path := lockPath(t)
	other := newMutex(t, lockPath(t))
	var m *FileRMutex
	o := NewOwner()
	trace := &Trace{
		Acquired: func(TraceInfo, time.Duration) { other.Lock(); other.Unlock(); m.Lock(o); m.Unlock(o) },
		Released: func(TraceInfo, time.Duration) { m.Depth(o) },
	}
	m, err := NewFileRMutex(path, WithTrace(trace))
	must(t, err)
	m.Lock(o)
	m.Unlock(o)
	must(t, m.Close())
}

// A trace without hooks is valid.
func TestTraceWithoutHooks(t *testing.T) {
	m := newMutex(t, lockPath(t), WithTrace(&Trace{}))
	m.Lock()
	m.Unlock()
}

// A call for no units is not a hold. No later release ends it.
func TestTraceOfNoUnits(t *testing.T) {
	s := newSemaphore(t, semName(t), 1, WithTrace(&Trace{}))
	for range 10 {
		must(t, s.Acquire(t.Context(), 0))
		s.Release(0)
	}
	if n := len(s.trace.holds) - s.trace.ended; n != 0 {
		t.Errorf("%d holds, want 0", n)
	}
}
