package interlock

import (
	"context"
	"sync"
)

// A Group is a collection of goroutines that work on parts of one task, like
// [golang.org/x/sync/errgroup.Group]. Each goroutine holds a unit of a
// [FileSemaphore] while it runs. So the size of the semaphore limits how many
// of them run at once, in all processes of the machine together.
//
// A Group is created by [FileSemaphore.Group]. It should not be reused for
// another task.
type Group struct {
	sem     *FileSemaphore
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	errOnce sync.Once
	err     error
}

// Group returns a new [Group] and a context derived from ctx. The context is
// canceled when a function passed to Go or TryGo first returns an error, or
// when Wait returns.
func (s *FileSemaphore) Group(ctx context.Context) (*Group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{sem: s, ctx: ctx, cancel: cancel}, ctx
}

// Go waits for a unit and then calls f in a new goroutine. The first call that
// returns an error cancels the group's context, and [Group.Wait] returns that
// error.
//
// If Go cannot acquire a unit, for example because the group's context is done,
// it does not call f. The error of [FileSemaphore.Acquire] then counts like one
// returned by f.
func (g *Group) Go(f func() error) {
	if err := g.sem.Acquire(g.ctx, 1); err != nil {
		g.fail(err)
		return
	}
	g.start(f)
}

// TryGo calls f in a new goroutine if a unit is available now and the group's
// context is not done. It reports whether it started the goroutine. It panics
// like [FileSemaphore.TryAcquire].
func (g *Group) TryGo(f func() error) bool {
	if g.ctx.Err() != nil || !g.sem.TryAcquire(1) {
		return false
	}
	g.start(f)
	return true
}

// start calls f in a new goroutine, and releases its unit afterward.
func (g *Group) start(f func() error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		// Release the unit only after fail has canceled the context.
		// Otherwise a Go call that waits for a unit could still acquire
		// this one.
		defer g.sem.Release(1)
		if err := f(); err != nil {
			g.fail(err)
		}
	}()
}

func (g *Group) fail(err error) {
	g.errOnce.Do(func() {
		g.err = err
		g.cancel(err)
	})
}

// Wait blocks until all functions have returned, then returns the first error,
// if any.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(g.err)
	return g.err
}
