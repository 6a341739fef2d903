package locktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// patience is for what happens unless something is broken, however slow the machine.
var patience = 60 * time.Second

// moment is for what must not happen: long enough to see it nearly always if it can.
const moment = 50 * time.Millisecond

// A scene is where a test takes place: a lock of its own, with objects in this process and in others.
// What the test asks of it fails the test, instead of waiting for ever.
type scene[L lock] struct {
	*testing.T
	kind string
	name string
	size int64 // of a semaphore
	open func(name string, size int64) (L, error)
	far  func(*process) L // makes the calls in the other process
}

type lock interface{ Close() error }

// run runs a test of a lock, in parallel with others.
func (t *scene[L]) run(name string, test func(t *scene[L])) {
	t.Run(name, func(tt *testing.T) {
		tt.Parallel()
		test(t.at(tt))
	})
}

// at is the scene of the subtest tt, with a lock of its own.
func (t *scene[L]) at(tt *testing.T) *scene[L] {
	tt.Helper()
	// Not tt.TempDir, which fails the test if a file system has not let go of everything yet, such as NFS.
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

// A place is where those are who take part in a test: who holds the lock, and two more. What is the
// same in one process can be the same object.
type place[L lock] struct {
	name string
	cast func(t *scene[L]) (holder, first, second L)
}

func places[L lock]() []place[L] {
	return []place[L]{
		{"one object", func(t *scene[L]) (_, _, _ L) {
			l := t.here()
			return l, l, l
		}},
		{"objects of one process", func(t *scene[L]) (_, _, _ L) { return t.here(), t.here(), t.here() }},
		{"held elsewhere", func(t *scene[L]) (_, _, _ L) {
			l := t.here()
			return t.elsewhere(), l, l
		}},
		{"waited for elsewhere", func(t *scene[L]) (_, _, _ L) {
			l := t.elsewhere()
			return t.here(), l, l
		}},
		{"three processes", func(t *scene[L]) (_, _, _ L) { return t.here(), t.elsewhere(), t.elsewhere() }},
	}
}

// everywhere runs a test in all places, in each with a lock of its own.
func (t *scene[L]) everywhere(name string, test func(t *scene[L], holder, first, second L)) {
	t.Run(name, func(tt *testing.T) {
		tt.Parallel()
		group := *t
		group.T = tt
		for _, p := range places[L]() {
			group.run(p.name, func(t *scene[L]) {
				holder, first, second := p.cast(t)
				test(t, holder, first, second)
			})
		}
	})
}

// here opens the lock. By the end of the test, Close must succeed, or have been called.
func (t *scene[L]) here() L {
	t.Helper()
	var l L
	t.succeeds(start(func() (err error) {
		l, err = t.open(t.name, t.size)
		return err
	}))
	t.Cleanup(func() {
		select {
		case err := <-start(l.Close):
			if err != nil && !errors.Is(err, fs.ErrClosed) && !t.Failed() {
				t.Error("left in use: ", err)
			}
		case <-time.After(patience):
			t.Error("Close waits")
		}
	})
	return l
}

// elsewhere opens the lock in another process.
func (t *scene[L]) elsewhere() L {
	t.Helper()
	return t.far(t.process())
}

func (t *scene[L]) process() *process {
	t.Helper()
	p, err := startProcess(t.T, t.kind, t.name, t.size)
	t.must(err)
	return p
}

func (t *scene[L]) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A panicked is the error of a call that panics.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// start makes a call on a goroutine of its own. If it panics, that is the error, a [panicked].
func start(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- &panicked{p, debug.Stack()}
			}
		}()
		done <- call()
	}()
	return done
}

// starts is start for calls without an error.
func starts(call func()) <-chan error {
	return start(func() error { call(); return nil })
}

// startWith is start for a call with a context.
func startWith(ctx context.Context, call func(context.Context) error) <-chan error {
	return start(func() error { return call(ctx) })
}

// result waits for the error of a call.
func (t *scene[L]) result(done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("still waiting")
		return nil
	}
}

// outcome is result for a call that may fail, but must not panic.
func (t *scene[L]) outcome(done <-chan error) error {
	t.Helper()
	err := t.result(done)
	if p, ok := err.(*panicked); ok {
		t.Fatal(p)
	}
	return err
}

// succeeds waits for calls, which must not fail.
func (t *scene[L]) succeeds(done ...<-chan error) {
	t.Helper()
	for _, d := range done {
		t.must(t.result(d))
	}
}

// do makes calls that may wait, but not for ever.
func (t *scene[L]) do(calls ...func()) {
	t.Helper()
	for _, call := range calls {
		t.succeeds(starts(call))
	}
}

// waits fails if one of the calls does not wait.
func (t *scene[L]) waits(done ...<-chan error) {
	t.Helper()
	time.Sleep(moment)
	for _, d := range done {
		select {
		case err := <-d:
			t.Fatal("did not wait: ", err)
		default:
		}
	}
}

// ends waits for a call that must fail with the error want itself.
func (t *scene[L]) ends(done <-chan error, want error) {
	t.Helper()
	if err := t.result(done); err != want {
		t.Fatalf("error %v, want %v itself", err, want)
	}
}

// try makes a call that must not wait.
func (t *scene[L]) try(call func() bool) bool {
	t.Helper()
	var ok bool
	t.do(func() { ok = call() })
	return ok
}

// grants makes tries that must succeed.
func (t *scene[L]) grants(tries ...func() bool) {
	t.Helper()
	for i, try := range tries {
		if !t.try(try) {
			t.Fatalf("%s is refused (%d of %d)", called(try), i+1, len(tries))
		}
	}
}

// refuses makes tries that must fail.
func (t *scene[L]) refuses(tries ...func() bool) {
	t.Helper()
	for i, try := range tries {
		if t.try(try) {
			t.Fatalf("%s is not refused (%d of %d)", called(try), i+1, len(tries))
		}
	}
}

// called is the name of the method behind a method value.
func called(method func() bool) string {
	name := runtime.FuncForPC(reflect.ValueOf(method).Pointer()).Name()
	return strings.TrimSuffix(name[strings.LastIndexByte(name, '.')+1:], "-fm")
}

// closes waits until tries go on failing, since others wait. What they get until then is undone. That
// one fails proves nothing: those others may just be looking whether they have to wait.
func (t *scene[L]) closes(try func() bool, undo func()) {
	t.Helper()
	refused := 0
	t.until("refused because others wait", func() bool {
		if refused++; t.try(try) {
			t.do(undo)
			refused = 0
		}
		return refused == 10
	})
}

// until waits until cond holds.
func (t *scene[L]) until(what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatal("never ", what)
		}
	}
}

// panics makes a call, which must panic, and returns what with.
func (t *scene[L]) panics(what string, call func()) (value any) {
	t.Helper()
	p, ok := t.result(starts(call)).(*panicked)
	if !ok {
		t.Error("no panic: ", what)
		return nil
	}
	return p.value
}

// shut calls Close.
func (t *scene[L]) shut(l L) error {
	t.Helper()
	return t.outcome(start(l.Close))
}

// endedContexts are contexts that have ended in either way.
func endedContexts() []context.Context {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithTimeout(context.Background(), 0)
	cancel()
	return []context.Context{cancelled, expired}
}
