package locktest

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// A panicError is the error of a call that panics.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", p.value, p.stack) }

// start runs call on a new goroutine. The channel receives its error, which is
// a [panicError] if call panics.
func start(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- &panicError{p, debug.Stack()}
			}
		}()
		done <- call()
	}()
	return done
}

// startFunc is like start, for a call that returns no error.
func startFunc(call func()) <-chan error {
	return start(func() error { call(); return nil })
}

// startContext is like start, for a call that takes a context.
func startContext(ctx context.Context, call func(context.Context) error) <-chan error {
	return start(func() error { return call(ctx) })
}

// result waits for a call and returns its error.
func (t *fixture[L]) result(done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(timeout):
		t.Fatal("the call blocks")
		return nil
	}
}

// resultNoPanic is like result, for a call that may fail but must not panic.
func (t *fixture[L]) resultNoPanic(done <-chan error) error {
	t.Helper()
	err := t.result(done)
	if p, ok := err.(*panicError); ok {
		t.Fatal(p)
	}
	return err
}

// succeeds waits for calls that must not fail.
func (t *fixture[L]) succeeds(done ...<-chan error) {
	t.Helper()
	for _, d := range done {
		t.must(t.result(d))
	}
}

// do runs calls one after the other, each on a new goroutine.
func (t *fixture[L]) do(calls ...func()) {
	t.Helper()
	for _, call := range calls {
		t.succeeds(startFunc(call))
	}
}

// blocks fails unless all the calls block.
func (t *fixture[L]) blocks(done ...<-chan error) {
	t.Helper()
	time.Sleep(watchTime)
	for _, d := range done {
		select {
		case err := <-d:
			t.Fatal("the call did not block:", err)
		default:
		}
	}
}

// failsWith waits for a call that must return want itself, not an error that
// wraps it.
func (t *fixture[L]) failsWith(done <-chan error, want error) {
	t.Helper()
	if err := t.result(done); err != want {
		t.Fatalf("error %v, want %v itself", err, want)
	}
}

// try runs a call that must not block.
func (t *fixture[L]) try(call func() bool) bool {
	t.Helper()
	var ok bool
	t.do(func() { ok = call() })
	return ok
}

// trySucceeds runs calls, such as TryLock, that must return true.
func (t *fixture[L]) trySucceeds(tries ...func() bool) {
	t.Helper()
	for i, try := range tries {
		if !t.try(try) {
			t.Fatalf("%s returns false, want true (call %d of %d)", methodName(try), i+1, len(tries))
		}
	}
}

// tryFails runs calls, such as TryLock, that must return false.
func (t *fixture[L]) tryFails(tries ...func() bool) {
	t.Helper()
	for i, try := range tries {
		if t.try(try) {
			t.Fatalf("%s returns true, want false (call %d of %d)", methodName(try), i+1, len(tries))
		}
	}
}

// methodName returns the name of the method behind a method value.
func methodName(method func() bool) string {
	name := runtime.FuncForPC(reflect.ValueOf(method).Pointer()).Name()
	return strings.TrimSuffix(name[strings.LastIndexByte(name, '.')+1:], "-fm")
}

// untilRefused calls try until it keeps failing because others wait. It undoes
// each call that succeeds.
//
// One failed call proves nothing: a waiter that has just arrived may hold a
// lock for an instant to check whether it must wait.
func (t *fixture[L]) untilRefused(try func() bool, undo func()) {
	t.Helper()
	refused := 0
	t.eventually("refused because others wait", func() bool {
		if refused++; t.try(try) {
			t.do(undo)
			refused = 0
		}
		return refused == 10
	})
}

// eventually waits until cond is true.
func (t *fixture[L]) eventually(what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > timeout {
			t.Fatal("never", what)
		}
	}
}

// panics runs a call that must panic and returns the value of the panic.
func (t *fixture[L]) panics(what string, call func()) (value any) {
	t.Helper()
	p, ok := t.result(startFunc(call)).(*panicError)
	if !ok {
		t.Error("no panic:", what)
		return nil
	}
	return p.value
}

// closeLock calls Close.
func (t *fixture[L]) closeLock(l L) error {
	t.Helper()
	return t.resultNoPanic(start(l.Close))
}

// doneContexts returns a canceled context and an expired one.
func doneContexts() []context.Context {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	expired, cancel := context.WithTimeout(context.Background(), 0)
	cancel()
	return []context.Context{canceled, expired}
}
