package interlock

import (
	"errors"
	"sync"
	"time"
)

// A Trace is a set of hooks that tell what happens to a lock, see [WithTrace]. Any of them may be nil.
//
// They are called by the goroutine that locks or unlocks, with nothing held but what it has
// locked itself: so a hook may do what it likes, but what it does takes that goroutine's time. Hooks
// can be called by several goroutines at once. They must not panic: what they were told is locked, would stay so,
// and nobody would know. A Try that fails, and a [FileRMutex] that its owner has locked by the same object already,
// call none.
type Trace struct {
	// WaitStart is called when a call has to wait.
	WaitStart func(TraceInfo)
	// Acquired is called when a call has got what it wanted, after a wait of the given time,
	// which is 0 if it did not wait.
	Acquired func(info TraceInfo, waited time.Duration)
	// Abandoned is called when a call ends its wait with an error.
	Abandoned func(info TraceInfo, waited time.Duration, err error)
	// Released is called after the release of what was held for the given time. Of several
	// readers of one object, or units of one semaphore, it is not known which one is
	// released; the time is that of the one that was acquired first.
	Released func(info TraceInfo, held time.Duration)
}

// A TraceInfo says what a hook of a [Trace] is about.
type TraceInfo struct {
	Path   string // what the lock was made with
	Shared bool   // a read lock
	Units  int64  // of a semaphore; otherwise 1
}

// WithTrace makes the lock call the hooks of t, which must not change afterwards. Several locks
// can have the same t.
func WithTrace(t *Trace) Option { return func(o *options) { o.trace = t } }

// A tracer calls the hooks of a Trace for one lock.
type tracer struct {
	hooks *Trace
	path  string

	mu    sync.Mutex
	holds []traced // what is held, the oldest first, after ended ones
	ended int      // how many of holds
}

// A traced is some units that were acquired together.
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

// errInner: a lock was had that its owner held already, by the same object.
var errInner = errors.New("interlock: held already")

// acquire calls lock, which may wait if its argument says so. To try first overtakes nobody: a
// try fails if anybody waits.
func (t *tracer) acquire(shared bool, units int64, wait bool, lock func(wait bool) error) error {
	info := TraceInfo{t.path, shared, units}
	err := lock(false)
	if err == nil {
		t.hold(units)
		t.acquired(info, 0)
	}
	if !wait || !errors.Is(err, ErrLocked) {
		return err
	}
	if t.hooks.WaitStart != nil {
		t.hooks.WaitStart(info)
	}
	begin := time.Now()
	err = lock(true)
	waited := time.Since(begin)
	switch {
	case err == nil:
		t.hold(units)
		t.acquired(info, waited)
	case err == errInner:
		t.acquired(info, waited)
	case t.hooks.Abandoned != nil:
		t.hooks.Abandoned(info, waited, err)
	}
	return err
}

// hold notes when units were acquired.
func (t *tracer) hold(units int64) {
	if units == 0 { // which nobody releases
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

// end returns how long units that are about to be released were held. t may be nil.
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
