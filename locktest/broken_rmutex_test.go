package locktest_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

func init() {
	const (
		again     = "its owner locks it again and others do not"
		cancelled = "a cancelled wait leaves nothing"
		misuse    = "misuse panics and changes nothing"
	)
	breaks("RMutex knows one owner", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rOneOwner{m} }), "owners exclude each other", again)
	breaks("RMutex is not reentrant", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rOnce{m} }), again)
	breaks("Depth is 1 at most", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rShallow{m} }), again)
	breaks("Depth waits", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rDepthWaits{FileRMutex: m} }), "Depth does not wait")
	breaks("the first Unlock unlocks", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rUnlocksAll{m} }), again, "another owner waits until the last unlock", "Locker locks for its owner")
	breaks("Unlock of another owner", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rCareless{m} }), misuse)
	breaks("Unlock for another owner", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rUnlocksOther{FileRMutex: m} }), misuse)
	breaks("the zero Owner locks", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rZero{m} }), misuse)
	breaks("an owner waits once", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rWaitsOnce{FileRMutex: m} }), "goroutines of one owner get it together")
	breaks("cancelled together", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return &rTogether{FileRMutex: m} }), "who waits takes over from who gives up")
	breaks("a cancelled RMutex is locked later", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rLater{m} }), cancelled, "all of an owner give up")
	breaks("RMutex cannot be cancelled", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDeaf{m} }), cancelled, "all of an owner give up", "who waits takes over from who gives up")
	breaks("RMutex granted and cancelled at once", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rBoth{m} }), "a cancel races the unlock")
	breaks("an owner with an ended context", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rEnded{m} }), "a context that has ended fails")
	breaks("each object is a lock for an owner", locktest.Locks{RMutex: hardlinked}, "objects of one name are one lock for an owner")
	breaks("all objects are the same", locktest.Locks{RMutex: cached}, "objects of one name are one lock for an owner")
	breaks("Do with a new owner", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoNew{m} }), "Do", "Do of several locks")
	breaks("Do stays locked", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoKeeps{m} }), "Do", "Do unlocks after a panic")
	breaks("Do has no error", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoNoError{m} }), "Do", "Do waits and can be cancelled")
	breaks("Do recovers", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoRecovers{m} }), "Do unlocks after a panic")
	breaks("Do calls nevertheless", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rDoCalls{m} }), "Do waits and can be cancelled")
	breaks("Locker has an owner of its own", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rLocker{m} }), "Locker locks for its owner")
	breaks("RMutex is closed while in use", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rCloses{m} }), "Close")
	breaks("RMutex is not closed", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rOpen{m} }), "Close")
	breaks("RMutex leaks", r(func(m *interlock.FileRMutex, _ string) locktest.RMutex { return rLeaks{m} }), "leaves no goroutines")
	breaks("RMutex outlives its owner", r(func(m *interlock.FileRMutex, name string) locktest.RMutex { return rMarked{m, marker(name + ".held")} }), "killed owner frees the lock")
	breaks("RMutex's waiters outlive themselves", r(func(m *interlock.FileRMutex, name string) locktest.RMutex { return rTicket{m, marker(name + ".waits")} }), "killed waiter leaves nothing")
	breaks("RMutex is a lease", r(func(m *interlock.FileRMutex, name string) locktest.RMutex { return rLease{m, lease(name + ".pid")} }), "stopped owner keeps the lock")
}

var theOwner = interlock.NewOwner()

type rOneOwner struct{ *interlock.FileRMutex }

func (m rOneOwner) Lock(interlock.Owner)         { m.FileRMutex.Lock(theOwner) }
func (m rOneOwner) TryLock(interlock.Owner) bool { return m.FileRMutex.TryLock(theOwner) }
func (m rOneOwner) Unlock(interlock.Owner)       { m.FileRMutex.Unlock(theOwner) }
func (m rOneOwner) Depth(interlock.Owner) int    { return m.FileRMutex.Depth(theOwner) }
func (m rOneOwner) LockContext(ctx context.Context, _ interlock.Owner) error {
	return m.FileRMutex.LockContext(ctx, theOwner)
}

type rOnce struct{ *interlock.FileRMutex }

func (m rOnce) TryLock(o interlock.Owner) bool { return m.Depth(o) == 0 && m.FileRMutex.TryLock(o) }

type rShallow struct{ *interlock.FileRMutex }

func (m rShallow) Depth(o interlock.Owner) int { return min(1, m.FileRMutex.Depth(o)) }

type rDepthWaits struct {
	*interlock.FileRMutex
	mu sync.Mutex
}

func (m *rDepthWaits) Lock(o interlock.Owner) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.FileRMutex.Lock(o)
}
func (m *rDepthWaits) Depth(o interlock.Owner) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.FileRMutex.Depth(o)
}

type rUnlocksAll struct{ *interlock.FileRMutex }

func (m rUnlocksAll) Unlock(o interlock.Owner) {
	for m.Depth(o) > 0 {
		m.FileRMutex.Unlock(o)
	}
}

func (m rUnlocksAll) Locker(o interlock.Owner) sync.Locker { return rOwned{m, o} }

type rOwned struct {
	locktest.RMutex
	o interlock.Owner
}

func (m rOwned) Lock()   { m.RMutex.Lock(m.o) }
func (m rOwned) Unlock() { m.RMutex.Unlock(m.o) }

type rCareless struct{ *interlock.FileRMutex }

func (m rCareless) Unlock(o interlock.Owner) { swallow(func() { m.FileRMutex.Unlock(o) }) }

type rUnlocksOther struct {
	*interlock.FileRMutex
	last atomic.Value
}

func (m *rUnlocksOther) Lock(o interlock.Owner) { m.FileRMutex.Lock(o); m.last.Store(o) }
func (m *rUnlocksOther) Unlock(o interlock.Owner) {
	if last, ok := m.last.Load().(interlock.Owner); ok && last != o {
		swallow(func() { m.FileRMutex.Unlock(last) })
	}
	m.FileRMutex.Unlock(o)
}

type rZero struct{ *interlock.FileRMutex }

func (m rZero) TryLock(o interlock.Owner) bool {
	return o != interlock.Owner{} && m.FileRMutex.TryLock(o)
}

type rWaitsOnce struct {
	*interlock.FileRMutex
	waiting sync.Map
}

func (m *rWaitsOnce) Lock(o interlock.Owner) {
	if _, ok := m.waiting.LoadOrStore(o, true); ok && m.Depth(o) == 0 {
		panic("it waits already")
	}
	m.FileRMutex.Lock(o)
	m.waiting.Delete(o)
}

type rTogether struct {
	*interlock.FileRMutex
	mu      sync.Mutex
	cancels []context.CancelFunc
}

func (m *rTogether) LockContext(ctx context.Context, o interlock.Owner) error {
	ctx, cancel := context.WithCancel(ctx)
	m.mu.Lock()
	m.cancels = append(m.cancels, cancel)
	m.mu.Unlock()
	err := m.FileRMutex.LockContext(ctx, o)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, cancel := range m.cancels {
		if err != nil {
			cancel()
		}
	}
	return err
}

type rLater struct{ *interlock.FileRMutex }

func (m rLater) LockContext(ctx context.Context, o interlock.Owner) error {
	err := m.FileRMutex.LockContext(ctx, o)
	if err != nil {
		go swallow(func() { m.Lock(o) })
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type rDeaf struct{ *interlock.FileRMutex }

func (m rDeaf) LockContext(ctx context.Context, o interlock.Owner) error {
	if ctx.Err() == nil {
		m.Lock(o)
	}
	return ctx.Err()
}

type rBoth struct{ *interlock.FileRMutex }

func (m rBoth) LockContext(ctx context.Context, o interlock.Owner) error {
	if err := m.FileRMutex.LockContext(ctx, o); err != nil {
		return err
	}
	time.Sleep(100 * time.Microsecond)
	return ctx.Err()
}

type rEnded struct{ *interlock.FileRMutex }

func (m rEnded) LockContext(ctx context.Context, o interlock.Owner) error {
	if m.Depth(o) > 0 {
		ctx = ifEnded(ctx)
	}
	return m.FileRMutex.LockContext(ctx, o)
}

// hardlinked are locks for each of which the file has another name.
func hardlinked(name string) (locktest.RMutex, error) {
	if f, err := os.OpenFile(name, os.O_CREATE, 0o600); err == nil {
		f.Close()
	}
	link := name + interlock.Must(os.CreateTemp("", "link")).Name()[len(os.TempDir())+1:]
	if err := os.Link(name, link); err != nil {
		return nil, err
	}
	return files.RMutex(link)
}

var cache sync.Map

func cached(name string) (locktest.RMutex, error) {
	m, err := files.RMutex(name)
	first, _ := cache.LoadOrStore(name, m)
	return rOpen{first.(*interlock.FileRMutex)}, err
}

type rDoNew struct{ *interlock.FileRMutex }

func (m rDoNew) Do(ctx context.Context, f func(ctx context.Context) error) error {
	return m.FileRMutex.Do(interlock.ContextWithOwner(ctx, interlock.NewOwner()), f)
}

type rDoKeeps struct{ *interlock.FileRMutex }

func (m rDoKeeps) Do(ctx context.Context, f func(ctx context.Context) error) error {
	return m.FileRMutex.Do(ctx, func(ctx context.Context) error {
		o, _ := interlock.OwnerFromContext(ctx)
		m.Lock(o)
		err := f(ctx)
		if err == nil {
			m.Unlock(o)
		}
		return err
	})
}

type rDoNoError struct{ *interlock.FileRMutex }

func (m rDoNoError) Do(ctx context.Context, f func(ctx context.Context) error) error {
	m.FileRMutex.Do(ctx, f)
	return nil
}

type rDoRecovers struct{ *interlock.FileRMutex }

func (m rDoRecovers) Do(ctx context.Context, f func(ctx context.Context) error) (err error) {
	defer func() { recover() }()
	return m.FileRMutex.Do(ctx, f)
}

type rDoCalls struct{ *interlock.FileRMutex }

func (m rDoCalls) Do(ctx context.Context, f func(ctx context.Context) error) error {
	err := m.FileRMutex.Do(ctx, f)
	if err != nil && err == ctx.Err() {
		f(ctx)
	}
	return err
}

type rLocker struct{ *interlock.FileRMutex }

func (m rLocker) Locker(interlock.Owner) sync.Locker { return m.FileRMutex.Locker(theOwner) }

type rCloses struct{ *interlock.FileRMutex }

func (m rCloses) Close() error { m.FileRMutex.Close(); return nil }

type rOpen struct{ *interlock.FileRMutex }

func (m rOpen) Close() error { return nil }

type rLeaks struct{ *interlock.FileRMutex }

func (m rLeaks) LockContext(ctx context.Context, o interlock.Owner) error {
	go func() { select {} }()
	return m.FileRMutex.LockContext(ctx, o)
}

type rMarked struct {
	*interlock.FileRMutex
	held marker
}

func (m rMarked) Lock(o interlock.Owner) {
	m.FileRMutex.Lock(o)
	if m.Depth(o) == 1 {
		m.held.set(context.Background())
	}
}
func (m rMarked) Unlock(o interlock.Owner) {
	if m.Depth(o) == 1 {
		m.held.clear()
	}
	m.FileRMutex.Unlock(o)
}

type rTicket struct {
	*interlock.FileRMutex
	waits marker
}

func (m rTicket) LockContext(ctx context.Context, o interlock.Owner) error {
	if err := m.waits.set(ctx); err != nil {
		return err
	}
	defer m.waits.clear()
	return m.FileRMutex.LockContext(ctx, o)
}
func (m rTicket) Lock(o interlock.Owner) {
	if err := m.LockContext(context.Background(), o); err != nil {
		panic(errors.New("not locked"))
	}
}

type rLease struct {
	*interlock.FileRMutex
	held lease
}

func (m rLease) Lock(o interlock.Owner) {
	m.held.wait(func(ctx context.Context) error { return m.LockContext(ctx, o) })
}
func (m rLease) Unlock(o interlock.Owner) { swallow(func() { m.FileRMutex.Unlock(o) }) }
