//go:build linux

package proof

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/interlock-go/interlock"
)

// rwCapacity is the capacity of a lock for readers and writers. A writer takes
// all of it, a reader takes 1.
const rwCapacity = 1000

// A lock is a lock with a capacity, as one client uses it.
type lock interface {
	// acquire waits until it can take the weight, or until ctx is done.
	acquire(ctx context.Context, weight int64) error
	// try is like acquire, but returns ErrLocked instead of waiting.
	try(weight int64) error
	release(weight int64)
}

// An implementation is a way to lock a file.
type implementation struct {
	// open returns a lock for one client. Clients of a process may share a
	// lock.
	open func(path string, capacity int64) (lock, error)
	// weights are the weights to choose from. 0 stands for the capacity.
	weights []int64
}

var implementations = map[string]implementation{
	"FileRWMutex":   {shareObject(openRWMutex), []int64{0, 1}},
	"FileRMutex":    {shareObject(openRMutex), []int64{0}},
	"FileSemaphore": {shareObject(openSemaphore), []int64{1, 1, 1, 2, 3, 0}},

	"flock(1)":              {openFlock, []int64{0, 1}},
	"portalocker":           {openPortalocker, []int64{0}},
	"portalocker semaphore": {openPortalockerSemaphore, []int64{1}},

	// Broken on purpose.
	"unchecked file": {openUnchecked, []int64{0, 1}},
	"early release":  {openEarlyRelease, []int64{0, 1}},
	"too few units":  {openTooFew, []int64{1, 2, 3, 0}},
}

// shareObject returns a function that opens a new object for every third
// client. The other clients share one object.
func shareObject(open func(path string, capacity int64) (lock, error)) func(path string, capacity int64) (lock, error) {
	var mu sync.Mutex
	var one lock
	n := 0
	return func(path string, capacity int64) (l lock, err error) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%3 == 0 {
			return open(path, capacity)
		}
		if one == nil {
			if one, err = open(path, capacity); err != nil {
				one = nil
			}
		}
		return one, err
	}
}

type rwMutex struct{ *interlock.FileRWMutex }

func openRWMutex(path string, _ int64) (lock, error) {
	m, err := interlock.NewFileRWMutex(path)
	return rwMutex{m}, err
}

func (m rwMutex) acquire(ctx context.Context, weight int64) error {
	if weight == 1 {
		return m.RLockContext(ctx)
	}
	return m.LockContext(ctx)
}

func (m rwMutex) try(weight int64) error {
	if weight == 1 {
		return m.TryRLockContext(context.Background())
	}
	return m.TryLockContext(context.Background())
}

func (m rwMutex) release(weight int64) {
	if weight == 1 {
		m.RUnlock()
	} else {
		m.Unlock()
	}
}

// An rMutex locks with a new owner each time, up to three times in a row.
type rMutex struct {
	m      *interlock.FileRMutex
	mu     sync.Mutex
	owner  interlock.Owner // holds m
	levels int
}

func openRMutex(path string, _ int64) (lock, error) {
	m, err := interlock.NewFileRMutex(path)
	return &rMutex{m: m}, err
}

func (m *rMutex) acquire(ctx context.Context, _ int64) error {
	return m.lock(func(o interlock.Owner) error { return m.m.LockContext(ctx, o) })
}

func (m *rMutex) try(int64) error {
	return m.lock(func(o interlock.Owner) error { return m.m.TryLockContext(context.Background(), o) })
}

func (m *rMutex) lock(once func(interlock.Owner) error) error {
	o := interlock.NewOwner()
	if err := once(o); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owner, m.levels = o, 1
	for range rand.IntN(3) {
		m.m.Lock(o)
		m.levels++
	}
	return nil
}

func (m *rMutex) release(int64) {
	m.mu.Lock()
	o, levels := m.owner, m.levels
	m.mu.Unlock()
	for range levels {
		m.m.Unlock(o)
	}
}

type semaphore struct{ *interlock.FileSemaphore }

func openSemaphore(path string, capacity int64) (lock, error) {
	s, err := interlock.NewFileSemaphore(path, capacity)
	return semaphore{s}, err
}

func (s semaphore) acquire(ctx context.Context, weight int64) error { return s.Acquire(ctx, weight) }
func (s semaphore) release(weight int64)                            { s.Release(weight) }

func (s semaphore) try(weight int64) (err error) {
	defer func() {
		if r := recover(); r != nil { // the system refused
			err = r.(error)
		}
	}()
	if !s.TryAcquire(weight) {
		return interlock.ErrLocked
	}
	return nil
}

const pollInterval = time.Millisecond

// poll calls try until it does not return ErrLocked or ctx is done. It is for
// implementations that cannot wait for a context.
func poll(ctx context.Context, try func() error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := try(); err != interlock.ErrLocked {
			return err
		}
		time.Sleep(pollInterval)
	}
}
