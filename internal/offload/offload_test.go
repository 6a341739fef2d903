package offload

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errCall = errors.New("the call's error")

// patience is for what happens unless something is broken, however slow the
// machine.
const patience = time.Minute

func setGrace(t *testing.T, d time.Duration) {
	t.Helper()
	t.Cleanup(SetGrace(d))
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("timeout")
	}
	return v
}

// canceled returns a context that is done.
func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func noLate(t *testing.T) func() {
	return func() { t.Error("late ran") }
}

func TestRunReturnsResult(t *testing.T) {
	for _, want := range []error{nil, errCall} {
		end := func() { t.Error("end ran") }
		abandoned, err := Run(t.Context(), func() error { return want }, end, noLate(t))
		if abandoned || err != want {
			t.Errorf("%t, %v, want false, %v", abandoned, err, want)
		}
	}
}

func TestRunEndsCallWithContext(t *testing.T) {
	setGrace(t, patience)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	call := func() error { cancel(); <-ended; return errCall }
	abandoned, err := Run(ctx, call, func() { close(ended) }, noLate(t))
	if abandoned || err != context.Canceled {
		t.Errorf("%t, %v, want false, context canceled", abandoned, err)
	}
}

func TestRunAbandonsCall(t *testing.T) {
	setGrace(t, time.Millisecond)
	for name, end := range map[string]func(){"end": func() {}, "no end": nil} {
		t.Run(name, func(t *testing.T) {
			answer, late := make(chan struct{}), make(chan struct{})
			var returned atomic.Bool
			abandoned, err := Run(canceled(), func() error {
				<-answer
				returned.Store(true)
				return nil
			}, end, func() {
				if !returned.Load() {
					t.Error("late ran before the call returned")
				}
				close(late)
			})
			if !abandoned || err != context.Canceled {
				t.Errorf("%t, %v, want true, context canceled", abandoned, err)
			}
			close(answer)
			receive(t, late)
		})
	}
}

// The function that ends a call asks the same file system, and so may not
// return either.
func TestRunAbandonsEnd(t *testing.T) {
	setGrace(t, time.Millisecond)
	ending, answer, late := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	abandoned, err := Run(canceled(), func() error { <-ending; return nil }, func() {
		close(ending)
		<-answer
		ended.Store(true)
	}, func() {
		if !ended.Load() {
			t.Error("late ran before end returned")
		}
		close(late)
	})
	if !abandoned || err != context.Canceled {
		t.Errorf("%t, %v, want true, context canceled", abandoned, err)
	}
	close(answer)
	receive(t, late)
}

// However the end of a call and the end of the grace period race, the caller
// undoes the call or late does, and never both.
func TestRunAbandonsExactlyOnce(t *testing.T) {
	setGrace(t, 2*time.Millisecond)
	times := map[bool]int{}
	for range 300 {
		answer := make(chan struct{})
		time.AfterFunc(rand.N(Grace()), func() { close(answer) })
		late := make(chan struct{}, 1)
		abandoned, _ := Run(canceled(), func() error { <-answer; return nil }, nil, func() { late <- struct{}{} })
		times[abandoned]++
		if abandoned {
			receive(t, late)
			continue
		}
		select {
		case <-late:
			t.Fatal("late ran for a call that was not abandoned")
		case <-time.After(10 * time.Microsecond):
		}
	}
	t.Logf("%d of 300 calls were abandoned", times[true])
}

// device returns a device that no other test uses.
func device() uint64 { return lastDevice.Add(1) }

var lastDevice atomic.Uint64

func TestDoWithoutDoneCallsDirectly(t *testing.T) {
	if _, err := Do(context.Background(), device(), func() error { return errCall }, noLate(t)); err != errCall {
		t.Error(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("the call's panic is lost")
		}
	}()
	Do(context.Background(), device(), func() error { panic("on the caller's goroutine") }, noLate(t))
}

// block makes n calls to a device, which return when answer is closed, and
// waits until all of them run.
func block(t *testing.T, ctx context.Context, device uint64, n int, answer <-chan struct{}) (done *sync.WaitGroup) {
	t.Helper()
	done = new(sync.WaitGroup)
	running := make(chan struct{}, n)
	for range n {
		done.Add(1)
		go func() {
			defer done.Done()
			Do(ctx, device, func() error { running <- struct{}{}; <-answer; return nil }, func() {})
		}()
	}
	for range n {
		receive(t, running)
	}
	return done
}

// refused fails if there is room for a call to the device.
func refused(t *testing.T, device uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	call := func() error { t.Error("the call was made"); return nil }
	if abandoned, err := Do(ctx, device, call, noLate(t)); abandoned || err != context.DeadlineExceeded {
		t.Errorf("%t, %v, want false, deadline exceeded", abandoned, err)
	}
}

// allowed fails if there is no room for a call to the device.
func allowed(t *testing.T, device uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := Do(ctx, device, func() error { return nil }, noLate(t)); err != nil {
		t.Error(err)
	}
}

// idle fails unless all calls are released in time. A call of a device holds
// both semaphores, so one check is enough.
func idle(t *testing.T, devices ...uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if calls.Acquire(ctx, MaxCalls) != nil {
		t.Error("calls are still counted")
	} else {
		calls.Release(MaxCalls)
	}
	for _, d := range devices {
		if callsTo(d).Acquire(ctx, MaxPerDevice) != nil {
			t.Error("calls to a device are still counted")
		} else {
			callsTo(d).Release(MaxPerDevice)
		}
	}
}

func TestDoBoundsCallsPerDevice(t *testing.T) {
	slow, other := device(), device()
	answer := make(chan struct{})
	done := block(t, t.Context(), slow, MaxPerDevice, answer)
	refused(t, slow)
	allowed(t, other)
	if _, err := Do(context.Background(), slow, func() error { return nil }, noLate(t)); err != nil {
		t.Error("a call without a deadline is counted: ", err)
	}
	close(answer)
	done.Wait()
	allowed(t, slow)
	idle(t, slow, other)
}

func TestDoBoundsAllCalls(t *testing.T) {
	answer := make(chan struct{})
	var devices []uint64
	var done []*sync.WaitGroup
	for range MaxCalls / MaxPerDevice {
		devices = append(devices, device())
		done = append(done, block(t, t.Context(), devices[len(devices)-1], MaxPerDevice, answer))
	}
	other := device()
	refused(t, other)
	close(answer)
	for _, wg := range done {
		wg.Wait()
	}
	allowed(t, other)
	idle(t, append(devices, other)...)
}

// Until late has returned, an abandoned call occupies a thread.
func TestDoCountsAbandonedCallsUntilLateReturns(t *testing.T) {
	setGrace(t, time.Millisecond)
	d := device()
	ctx, cancel := context.WithCancel(t.Context())
	answer, late, finish := make(chan struct{}), make(chan struct{}), make(chan struct{})
	abandoned, err := Do(ctx, d, func() error { cancel(); <-answer; return nil }, func() {
		close(late)
		<-finish
	})
	if !abandoned || err != context.Canceled {
		t.Errorf("%t, %v, want true, context canceled", abandoned, err)
	}
	counted := func(when string) {
		t.Helper()
		if calls.TryAcquire(MaxCalls) {
			calls.Release(MaxCalls)
			t.Error("not counted " + when)
		}
		if callsTo(d).TryAcquire(MaxPerDevice) {
			callsTo(d).Release(MaxPerDevice)
			t.Error("not counted for the device " + when)
		}
	}
	counted("while the call runs")
	close(answer)
	receive(t, late)
	counted("while late runs")
	close(finish)
	idle(t, d)
}

func TestDoEndsWithContext(t *testing.T) {
	setGrace(t, patience)
	d := device()
	ctx, cancel := context.WithCancel(t.Context())
	abandoned, err := Do(ctx, d, func() error { cancel(); time.Sleep(time.Millisecond); return errCall }, noLate(t))
	if abandoned || err != context.Canceled && err != errCall {
		t.Errorf("%t, %v", abandoned, err)
	}
	idle(t, d)
}

func TestBrieflyWaits(t *testing.T) {
	setGrace(t, patience)
	called := false
	Briefly(func() { time.Sleep(time.Millisecond); called = true })
	if !called {
		t.Error("it did not wait")
	}
}

func TestBrieflyDoesNotWaitLong(t *testing.T) {
	setGrace(t, time.Millisecond)
	answer, done := make(chan struct{}), make(chan struct{})
	Briefly(func() { <-answer; close(done) })
	close(answer)
	receive(t, done)
}

func TestSetGraceRestores(t *testing.T) {
	old := Grace()
	restore := SetGrace(time.Hour)
	if Grace() != time.Hour {
		t.Error(Grace())
	}
	restore()
	if Grace() != old {
		t.Errorf("%v, was %v", Grace(), old)
	}
}
