package interlock

import (
	"context"
	"sync"
)

// A Group is a collection of goroutines that work on parts of one task, like
// [golang.org/x/sync/errgroup.Group], and each hold a unit of a [FileSemaphore] while they
// run: so their number is limited over all processes of the machine. It is made by
// [FileSemaphore.Group], and should not be used again for another task.
type Group struct {
	sem     *FileSemaphore
	ctx     context.Context
	cancel  context.CancelCauseFunc
	wg      sync.WaitGroup
	errOnce sync.Once
	err     error
}

// Group returns a new Group and a context derived from ctx, which is cancelled the first
// time that a function passed to Go or TryGo returns an error, or when Wait returns.
func (s *FileSemaphore) Group(ctx context.Context) (*Group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	return &Group{sem: s, ctx: ctx, cancel: cancel}, ctx
}

// Go waits for a unit, and then calls f in a new goroutine. If there is no unit before the
// group's context ends, f is not called, and that is an error, see
// [FileSemaphore.Acquire], like one that f returns: the first of all these cancels the
// context, and Wait returns it.
func (g *Group) Go(f func() error) {
	if err := g.sem.Acquire(g.ctx, 1); err != nil {
		g.fail(err)
		return
	}
	g.start(f)
}

// TryGo calls f in a new goroutine if it can have a unit at once and the group's context has not
// ended, and reports whether it did. It panics as [FileSemaphore.TryAcquire] does.
func (g *Group) TryGo(f func() error) bool {
	if g.ctx.Err() != nil || !g.sem.TryAcquire(1) {
		return false
	}
	g.start(f)
	return true
}

// start calls f in a goroutine that has a unit.
func (g *Group) start(f func() error) {
	g.wg.Go(func() {
		// After the context was cancelled, or somebody who waits for a unit would still get it.
		defer g.sem.Release(1)
		if err := f(); err != nil {
			g.fail(err)
		}
	})
}

func (g *Group) fail(err error) {
	g.errOnce.Do(func() {
		g.err = err
		g.cancel(err)
	})
}

// Wait waits until all functions have returned, and returns the first error, if any.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(g.err)
	return g.err
}
