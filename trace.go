package interlock

import (
	"errors"
	"sync"
	"time"
)

// A Trace is a set of hooks that report what happens to a lock; see
// [WithTrace]. Any hook may be nil.
//
// A hook runs on the goroutine that locks or unlocks, and delays it. That
// goroutine holds no lock other than those that it acquired itself, so a hook
// may use this package. Several goroutines may call a hook at once. A hook must
// not panic, or the lock that it reports would stay locked.
//
// A failed Try calls no hook. Neither does locking a [FileRMutex] that its
// owner has already locked through the same object. But if goroutines of one
// owner wait for it together, each of them calls Acquired, and only the last
// Unlock calls Released.
type Trace struct {
	// WaitStart is called when a call has to wait.
	WaitStart func(TraceInfo)
	// Acquired is called when a call has acquired the lock. It waited for
	// the given time, which is 0 if it did not have to wait.
	Acquired func(info TraceInfo, waited time.Duration)
	// Abandoned is called when a wait ends with an error.
	Abandoned func(info TraceInfo, waited time.Duration, err error)
	// Released is called after a release, with the time that the lock was
	// held. If several readers of one object hold the lock, or several
	// units of a semaphore are held, the time is that of the oldest hold.
	Released func(info TraceInfo, held time.Duration)
}

// A TraceInfo describes the call that a hook of a [Trace] reports.
type TraceInfo struct {
	Path   string // as passed to the constructor
	Shared bool   // whether it is a read lock
	Units  int64  // number of units of a semaphore; otherwise 1
}

// WithTrace makes the lock call the hooks of t, which must not change
// afterward. Several locks may share one t.
func WithTrace(t *Trace) Option { return func(o *options) { o.trace = t } }

// A tracer calls the hooks of a Trace for one lock.
type tracer struct {
	hooks *Trace
	path  string

	mu    sync.Mutex
	holds []traced // oldest first; those before index ended are over
	ended int
}

// traced records that a number of units were acquired together.
type traced struct {
	since time.Time
	units int64
}

// newTracer returns nil if there is nothing to trace.
func newTracer(t *Trace, path string) *tracer {
	if t == nil {
		return nil
	}
	return &tracer{hooks: t, path: path}
}

// acquire calls lock as a try. If that fails with [ErrLocked] and try is not
// set, it calls lock again, to wait. The first call overtakes no waiter,
// because a try fails if there is one.
//
// lock reports whether the hold is a new one, rather than one more of an owner
// that holds the lock already.
func (t *tracer) acquire(shared bool, units int64, try bool, lock func(try bool) (isNew bool, err error)) error {
	info := TraceInfo{t.path, shared, units}
	isNew, err := lock(true)
	if err == nil && isNew {
		t.hold(units)
		t.acquired(info, 0)
	}
	if try || !errors.Is(err, ErrLocked) {
		return err
	}
	if t.hooks.WaitStart != nil {
		t.hooks.WaitStart(info)
	}
	begin := time.Now()
	isNew, err = lock(false)
	waited := time.Since(begin)
	switch {
	case err == nil:
		if isNew {
			t.hold(units)
		}
		t.acquired(info, waited)
	case t.hooks.Abandoned != nil:
		t.hooks.Abandoned(info, waited, err)
	}
	return err
}

// hold records that units were acquired now.
func (t *tracer) hold(units int64) {
	if units == 0 { // no release would end it
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.holds) == cap(t.holds) && t.ended >= len(t.holds)/2 {
		t.holds = append(t.holds[:0], t.holds[t.ended:]...)
		t.ended = 0
	}
	t.holds = append(t.holds, traced{now, units})
}

func (t *tracer) acquired(info TraceInfo, waited time.Duration) {
	if t.hooks.Acquired != nil {
		t.hooks.Acquired(info, waited)
	}
}

// end returns how long the units that the caller is about to release were held.
// t may be nil.
func (t *tracer) end(units int64) (held time.Duration) {
	if t != nil {
		held = t.endHolds(units)
	}
	return held
}

func (t *tracer) endHolds(units int64) (held time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for units > 0 && t.ended < len(t.holds) {
		first := &t.holds[t.ended]
		held = max(held, time.Since(first.since))
		n := min(units, first.units)
		units -= n
		if first.units -= n; first.units == 0 {
			t.ended++
		}
	}
	if t.ended == len(t.holds) {
		t.holds, t.ended = t.holds[:0], 0
	}
	return held
}

func (t *tracer) released(shared bool, units int64, held time.Duration) {
	if t != nil && t.hooks.Released != nil {
		t.hooks.Released(TraceInfo{t.path, shared, units}, held)
	}
}
