package locktest_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

func init() {
	const (
		served     = "who waits for one object is served in order"
		overtaken  = "a waiting one is not overtaken by tries"
		lighter    = "a waiting one is not overtaken by who needs less"
		starve     = "light ones do not starve a heavy one"
		busy       = "a busy line lets other processes in"
		deadlock   = "who want everything do not wait for each other"
		inUse      = "never more units in use than there are"
		tooMany    = "who wants more than the size waits and holds up nobody"
		freesAll   = "a cancelled wait frees all that it had"
		misuse     = "misuse panics and changes nothing"
		oneSize    = "the size is one for all"
		nothing    = "to acquire nothing takes waiting in line"
		ended      = "a context that has ended fails"
		killed     = "killed process frees its units"
		killedHead = "killed head of the queue leaves nothing"
	)
	breaks("one unit more", locktest.Locks{Semaphore: oneMore}, inUse, "all units or none", "size zero")
	breaks("Semaphore polls", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semPolls{s} }), served, overtaken, lighter, starve)
	breaks("units one by one", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semOneByOne{s} }), deadlock)
	breaks("TryAcquire keeps some", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semTryKeeps{s} }), "all units or none")
	breaks("a cancelled wait keeps one", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semKeepsOne{s} }), freesAll, "an expired wait leaves nothing", "cancelled ones leave the line")
	breaks("Semaphore cannot be cancelled", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semDeaf{s} }), freesAll, "cancelled ones leave the line", "an expired wait leaves nothing")
	breaks("Semaphore granted and cancelled at once", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semBoth{s} }), "a cancel races the release")
	breaks("Semaphore wraps the context's error", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semWraps{s} }), ended, "an expired wait leaves nothing")
	breaks("Release of too many", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semCareless{s} }), misuse)
	breaks("Release of too many releases all", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return &semAllOut{FileSemaphore: s} }), misuse)
	breaks("Acquire of a negative number", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semNegative{s} }), misuse)
	breaks("units belong together", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return &semTogether{FileSemaphore: s} }), "units belong to nobody in particular")
	breaks("more than the size is refused", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semRefuses{s} }), tooMany, "size zero")
	breaks("more than the size holds up", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semHoldsUp{s} }), tooMany)
	breaks("Acquire with an ended context", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semEnded{s} }), ended)
	breaks("nothing is had at once", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semNothing{s} }), nothing, ended)
	breaks("each size is a semaphore", locktest.Locks{Semaphore: sized}, oneSize)
	breaks("the sizes are not named", locktest.Locks{Semaphore: unnamed}, oneSize)
	breaks("the size in use is not named, but the path is", locktest.Locks{Semaphore: halfNamed}, oneSize)
	breaks("Semaphore has another size in other processes", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semSizeElsewhere{s} }),
		"all units or none", "a new size holds when nobody uses the old")
	breaks("the first size is for ever", locktest.Locks{Semaphore: firstSize}, "a new size holds when nobody uses the old")
	breaks("Semaphore has another size", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semSize{s} }), "all units or none", "a new size holds when nobody uses the old")
	breaks("Semaphore is closed while in use", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semCloses{s} }), "Close")
	breaks("Semaphore is not closed", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semOpen{s} }), "Close")
	breaks("Semaphore leaks", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semLeaks{s} }), "leaves no goroutines")
	breaks("Semaphore counts in a file", sem(func(s *interlock.FileSemaphore, name string) locktest.Semaphore {
		return semCounts{s, interlock.Must(interlock.NewFileRWMutex(name + ".count"))}
	}), killed, "killed at any moment", killedHead)
	breaks("Semaphore's waiters outlive themselves", sem(func(s *interlock.FileSemaphore, name string) locktest.Semaphore {
		return semTicket{s, marker(name + ".waits")}
	}), killedHead)
	breaks("Semaphore is a lease", sem(func(s *interlock.FileSemaphore, name string) locktest.Semaphore {
		return semLease{s, lease(name + ".pid")}
	}), "stopped process keeps its units")
	breaks("Semaphore is handed on for ever", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return &semCohort{FileSemaphore: s} }), busy)
	breaks("a cancelled head stays", sem(func(s *interlock.FileSemaphore, _ string) locktest.Semaphore { return semStays{s} }), freesAll)
}

// biggerSemaphore has more units than it says.
type biggerSemaphore struct {
	*interlock.FileSemaphore
	size int64
}

func (s biggerSemaphore) Size() int64 { return s.size }

func oneMore(name string, size int64) (locktest.Semaphore, error) {
	s, err := interlock.NewFileSemaphore(name, size+1)
	return biggerSemaphore{s, size}, err
}

type semPolls struct{ *interlock.FileSemaphore }

func (s semPolls) Acquire(ctx context.Context, n int64) error {
	for ctx.Err() == nil {
		if s.TryAcquire(n) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

type semOneByOne struct{ *interlock.FileSemaphore }

func (s semOneByOne) Acquire(ctx context.Context, n int64) error {
	for range n {
		if err := s.FileSemaphore.Acquire(ctx, 1); err != nil {
			return err
		}
		time.Sleep(50 * time.Microsecond)
	}
	return nil
}

type semTryKeeps struct{ *interlock.FileSemaphore }

func (s semTryKeeps) TryAcquire(n int64) bool {
	for range n {
		if !s.FileSemaphore.TryAcquire(1) {
			return false
		}
	}
	return true
}

type semKeepsOne struct{ *interlock.FileSemaphore }

func (s semKeepsOne) Acquire(ctx context.Context, n int64) error {
	err := s.FileSemaphore.Acquire(ctx, n)
	if err != nil {
		go s.FileSemaphore.Acquire(context.Background(), 1)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// semStays stays in line when it is cancelled.
type semStays struct{ *interlock.FileSemaphore }

func (s semStays) Acquire(ctx context.Context, n int64) error {
	err := s.FileSemaphore.Acquire(ctx, n)
	if err != nil {
		go s.FileSemaphore.Acquire(context.Background(), n)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type semDeaf struct{ *interlock.FileSemaphore }

func (s semDeaf) Acquire(ctx context.Context, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.FileSemaphore.Acquire(context.Background(), n)
}

type semBoth struct{ *interlock.FileSemaphore }

func (s semBoth) Acquire(ctx context.Context, n int64) error {
	if err := s.FileSemaphore.Acquire(ctx, n); err != nil {
		return err
	}
	time.Sleep(100 * time.Microsecond)
	return ctx.Err()
}

type semWraps struct{ *interlock.FileSemaphore }

func (s semWraps) Acquire(ctx context.Context, n int64) error {
	if err := s.FileSemaphore.Acquire(ctx, n); err != nil {
		return fmt.Errorf("acquire: %w", err)
	}
	return nil
}

type semCareless struct{ *interlock.FileSemaphore }

func (s semCareless) Release(n int64) { swallow(func() { s.FileSemaphore.Release(n) }) }

type semAllOut struct {
	*interlock.FileSemaphore
	used atomic.Int64
}

func (s *semAllOut) Acquire(ctx context.Context, n int64) error {
	err := s.FileSemaphore.Acquire(ctx, n)
	if err == nil {
		s.used.Add(n)
	}
	return err
}
func (s *semAllOut) Release(n int64) {
	if used := s.used.Load(); n > used {
		s.FileSemaphore.Release(used)
		s.used.Store(0)
	} else {
		s.used.Add(-n)
	}
	s.FileSemaphore.Release(n)
}

type semNegative struct{ *interlock.FileSemaphore }

func (s semNegative) Acquire(ctx context.Context, n int64) error {
	return s.FileSemaphore.Acquire(ctx, max(n, 0))
}

// semTogether takes units back only as many at a time as were acquired.
type semTogether struct {
	*interlock.FileSemaphore
	had sync.Map
}

func (s *semTogether) Acquire(ctx context.Context, n int64) error {
	s.had.Store(n, true)
	return s.FileSemaphore.Acquire(ctx, n)
}
func (s *semTogether) Release(n int64) {
	if _, ok := s.had.LoadAndDelete(n); !ok {
		panic("not as many as were acquired")
	}
	s.FileSemaphore.Release(n)
}

type semRefuses struct{ *interlock.FileSemaphore }

func (s semRefuses) Acquire(ctx context.Context, n int64) error {
	if n > s.Size() {
		return fs.ErrInvalid
	}
	return s.FileSemaphore.Acquire(ctx, n)
}

type semHoldsUp struct{ *interlock.FileSemaphore }

func (s semHoldsUp) Acquire(ctx context.Context, n int64) error {
	if n <= s.Size() {
		return s.FileSemaphore.Acquire(ctx, n)
	}
	if s.FileSemaphore.Acquire(ctx, s.Size()) == nil {
		<-ctx.Done()
		s.Release(s.Size())
	}
	return ctx.Err()
}

type semEnded struct{ *interlock.FileSemaphore }

func (s semEnded) Acquire(ctx context.Context, n int64) error {
	if s.TryAcquire(n) {
		return nil
	}
	return s.FileSemaphore.Acquire(ctx, n)
}

type semNothing struct{ *interlock.FileSemaphore }

func (s semNothing) Acquire(ctx context.Context, n int64) error {
	if n == 0 {
		return nil
	}
	return s.FileSemaphore.Acquire(ctx, n)
}

func sized(name string, size int64) (locktest.Semaphore, error) {
	return files.Semaphore(fmt.Sprint(name, size), size)
}

func unnamed(name string, size int64) (locktest.Semaphore, error) {
	s, err := files.Semaphore(name, size)
	if err != nil {
		return nil, errors.New("in use")
	}
	return s, nil
}

func halfNamed(name string, size int64) (locktest.Semaphore, error) {
	s, err := files.Semaphore(name, size)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("not of size %d", size)}
	}
	return s, nil
}

func firstSize(name string, size int64) (locktest.Semaphore, error) {
	first, err := os.ReadFile(name + ".size")
	if err != nil {
		first = strconv.AppendInt(nil, size, 10)
		os.WriteFile(name+".size", first, 0o600)
	}
	if string(first) != fmt.Sprint(size) {
		return nil, fmt.Errorf("size %s, not %d", first, size)
	}
	return files.Semaphore(name, size)
}

type semSize struct{ *interlock.FileSemaphore }

func (s semSize) Size() int64 { return 7 }

type semSizeElsewhere struct{ *interlock.FileSemaphore }

func (s semSizeElsewhere) Size() int64 {
	if elsewhere() {
		return 7
	}
	return s.FileSemaphore.Size()
}

type semCloses struct{ *interlock.FileSemaphore }

func (s semCloses) Close() error { s.FileSemaphore.Close(); return nil }

type semOpen struct{ *interlock.FileSemaphore }

func (s semOpen) Close() error { return nil }

type semLeaks struct{ *interlock.FileSemaphore }

func (s semLeaks) Acquire(ctx context.Context, n int64) error {
	go func() { select {} }()
	return s.FileSemaphore.Acquire(ctx, n)
}

// semCounts counts the units that are in use in a file, as one does who thinks little.
type semCounts struct {
	*interlock.FileSemaphore
	count *interlock.FileRWMutex
}

func (s semCounts) add(n int64) bool {
	s.count.Lock()
	defer s.count.Unlock()
	data, _ := os.ReadFile(s.count.Path())
	used, _ := strconv.ParseInt(string(data), 10, 64)
	if used += n; used > s.Size() {
		return false
	}
	os.WriteFile(s.count.Path(), strconv.AppendInt(nil, used, 10), 0o600)
	return true
}

func (s semCounts) TryAcquire(n int64) bool { return s.add(n) }
func (s semCounts) Release(n int64)         { s.add(-n) }
func (s semCounts) Acquire(ctx context.Context, n int64) error {
	for ctx.Err() == nil {
		if s.add(n) {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

type semTicket struct {
	*interlock.FileSemaphore
	waits marker
}

func (s semTicket) Acquire(ctx context.Context, n int64) error {
	if err := s.waits.set(ctx); err != nil {
		return err
	}
	defer s.waits.clear()
	return s.FileSemaphore.Acquire(ctx, n)
}

type semLease struct {
	*interlock.FileSemaphore
	held lease
}

func (s semLease) Acquire(ctx context.Context, n int64) error {
	s.held.wait(func(ctx context.Context) error { return s.FileSemaphore.Acquire(ctx, n) })
	return nil
}
func (s semLease) Release(n int64) { swallow(func() { s.FileSemaphore.Release(n) }) }

// semCohort hands on within the process as long as somebody waits there. It is for one unit.
type semCohort struct {
	*interlock.FileSemaphore
	mu      sync.Mutex
	waiting atomic.Int32
	held    bool
}

func (s *semCohort) Acquire(ctx context.Context, n int64) error {
	s.waiting.Add(1)
	s.mu.Lock()
	s.waiting.Add(-1)
	if !s.held {
		s.FileSemaphore.Acquire(context.Background(), n)
	}
	s.held = true
	if err := ctx.Err(); err != nil {
		s.Release(n)
		return err
	}
	return nil
}

func (s *semCohort) Release(n int64) {
	if s.waiting.Load() == 0 {
		s.held = false
		s.FileSemaphore.Release(n)
	}
	s.mu.Unlock()
}
