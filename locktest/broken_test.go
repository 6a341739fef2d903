package locktest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
)

// brokenEnv names the broken locks that TestLocks is to test.
const brokenEnv = "LOCKTEST_BROKEN"

// broken are locks that are like those of package interlock but for one thing, each with the tests that must find it.
var broken = map[string]struct {
	locks  locktest.Locks
	caught []string
}{}

func breaks(name string, locks locktest.Locks, caught ...string) {
	if _, ok := broken[name]; ok {
		panic("two are called " + name)
	}
	b := broken[name]
	b.locks, b.caught = locks, caught
	broken[name] = b
}

// A test that cannot fail tests nothing.
func TestBrokenLocksAreCaught(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := "RWMutex"
			if b.locks.RMutex != nil {
				kind = "RMutex"
			} else if b.locks.Semaphore != nil {
				kind = "Semaphore"
			}
			if strings.Contains(name, "lease") && runtime.GOOS != "linux" {
				t.Skip("only on Linux it is known here who is stopped")
			}
			args := []string{"-test.run=^TestLocks$/^" + kind + "$/^(" + strings.Join(b.caught, "|") + ")$", "-test.parallel=20", "-test.timeout=1m"}
			var out []byte
			missed := b.caught
			for range 5 { // what must not happen is seen nearly always, on a machine that is not too slow
				cmd := exec.Command(self, args...)
				cmd.Env = append(os.Environ(), brokenEnv+"="+name, "GORACE=atexit_sleep_ms=0")
				out, _ = cmd.CombinedOutput()
				missed = slices.DeleteFunc(slices.Clone(missed), func(test string) bool {
					return strings.Contains(string(out), "--- FAIL: TestLocks/"+kind+"/"+strings.ReplaceAll(test, " ", "_")+" ")
				})
				if len(missed) == 0 {
					break
				}
			}
			if len(missed) > 0 || strings.Contains(string(out), "\npanic: ") {
				t.Errorf("not caught by %q\n%s", missed, out)
			}
			if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

func rw(breaks func(m *interlock.FileRWMutex, name string) locktest.RWMutex) locktest.Locks {
	return locktest.Locks{RWMutex: func(name string) (locktest.RWMutex, error) {
		m, err := interlock.NewFileRWMutex(name)
		if err != nil {
			return nil, err
		}
		return breaks(m, name), nil
	}}
}

func r(breaks func(m *interlock.FileRMutex, name string) locktest.RMutex) locktest.Locks {
	return locktest.Locks{RMutex: func(name string) (locktest.RMutex, error) {
		m, err := interlock.NewFileRMutex(name)
		if err != nil {
			return nil, err
		}
		return breaks(m, name), nil
	}}
}

func sem(breaks func(s *interlock.FileSemaphore, name string) locktest.Semaphore) locktest.Locks {
	return locktest.Locks{Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
		s, err := interlock.NewFileSemaphore(name, size)
		if err != nil {
			return nil, err
		}
		return breaks(s, name), nil
	}}
}

// renamed are locks whose names are others.
func renamed(rename func(name string) string) (rw, r, sem locktest.Locks) {
	rw.RWMutex = func(name string) (locktest.RWMutex, error) { return files.RWMutex(rename(name)) }
	r.RMutex = func(name string) (locktest.RMutex, error) { return files.RMutex(rename(name)) }
	sem.Semaphore = func(name string, size int64) (locktest.Semaphore, error) { return files.Semaphore(rename(name), size) }
	return rw, r, sem
}

func init() {
	inProcess := func(name string) string { return fmt.Sprint(name, os.Getpid()) }
	var objects atomic.Int64
	inObject := func(name string) string { return fmt.Sprint(inProcess(name), objects.Add(1)) }
	oneForAll := func(name string) string { return filepath.Join(filepath.Dir(name), "same") }
	m, o, s := renamed(inProcess)
	breaks("RWMutex of one process", m, "processes exclude each other", "a writer keeps all others out")
	breaks("RMutex of one process", o, "processes exclude each other", "its owner locks it again and others do not", "another owner waits until the last unlock")
	breaks("Semaphore of one process", s, "never more units in use than there are", "all units or none", "who waits is served when units are released")
	m, o, s = renamed(inObject)
	breaks("RWMutex of one object", m, "goroutines exclude each other", "another goroutine can unlock", "storm of cancels")
	breaks("RMutex of one object", o, "owners exclude each other")
	breaks("Semaphore of one object", s, "a release happens before the acquire that needs it", "units belong to nobody in particular")
	m, o, s = renamed(oneForAll)
	breaks("RWMutex without names", m, "different names are different locks")
	breaks("RMutex without names", o, "different names are different locks", "Do of several locks")
	breaks("Semaphore without names", s, "different names are different semaphores")
}

// ifEnded makes a context that has ended look as if it had not.
func ifEnded(ctx context.Context) context.Context {
	if ctx.Err() != nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// swallow makes a call and takes no notice if it panics.
func swallow(call func()) {
	defer func() { recover() }()
	call()
}

// A marker is the path of a file that is there while somebody does something, even after a crash.
type marker string

func (m marker) set(ctx context.Context) error {
	for ctx.Err() == nil {
		f, err := os.OpenFile(string(m), os.O_CREATE|os.O_EXCL, 0o600)
		if err == nil {
			return f.Close()
		}
		time.Sleep(time.Millisecond)
	}
	return ctx.Err()
}

func (m marker) clear() { os.Remove(string(m)) }

// A lease is the path of a file that names the process that has something, which it may lose while it is stopped.
type lease string

func (l lease) take() { os.WriteFile(string(l), []byte(fmt.Sprint(os.Getpid())), 0o600) }

func (l lease) lost() bool {
	pid, _ := os.ReadFile(string(l))
	stat, _ := os.ReadFile("/proc/" + string(pid) + "/stat")
	return strings.Contains(string(stat), ") T ")
}

// wait makes a call that waits until the lease is lost.
func (l lease) wait(call func(context.Context) error) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
		err := call(ctx)
		cancel()
		if err == nil || l.lost() {
			l.take()
			return
		}
	}
}

func init() {
	const (
		cancelledWriter = "a cancelled writer leaves nothing"
		cancelledReader = "a cancelled reader leaves nothing"
		endedFree       = "a context that has ended fails on a free lock"
		endedLocked     = "a context that has ended fails on a locked lock"
		overtaken       = "a waiting writer is not overtaken by tries"
		misuse          = "misuse panics and changes nothing"
	)
	breaks("LockContext with an ended context", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwEnded{m} }), endedFree)
	breaks("TryRLockContext with an ended context", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwTryEnded{m} }), endedFree)
	breaks("TryLockContext looks at its context last", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwTryFirst{m} }), endedLocked)
	breaks("a cancelled RWMutex is locked later", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwLater{m} }),
		cancelledWriter, cancelledReader, "a cancelled writer lets readers pass", "an expired wait leaves nothing",
		"a cancelled reader behind a writer leaves nothing", "a cancelled writer behind a reader leaves nothing")
	breaks("RWMutex cannot be cancelled", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwDeaf{m} }), cancelledWriter, "cancels at once do not disturb each other", "an expired wait leaves nothing")
	breaks("RWMutex wraps the context's error", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwWraps{m} }), cancelledWriter, endedFree)
	breaks("cancelled RWMutex unlocks", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwUnlocks{m} }), "storm of cancels")
	breaks("RWMutex granted and cancelled at once", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwBoth{m} }), "a cancel races the unlock")
	breaks("RWMutex polls", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwPolls{m, time.Millisecond} }),
		"readers do not starve a writer", "readers of one process do not starve a writer", "a waiting writer stops new readers", overtaken, "waiting writers of one object are served in order")
	breaks("RWMutex polls slowly", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwPolls{m, 100 * time.Millisecond} }),
		"a busy writer does not starve another")
	breaks("RWMutex is handed on for ever", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return &rwCohort{FileRWMutex: m} }),
		"busy goroutines do not starve another process")
	breaks("TryLock overtakes", rw(func(m *interlock.FileRWMutex, name string) locktest.RWMutex {
		return &rwOvertakes{FileRWMutex: m, name: name}
	}), overtaken)
	breaks("TryLock waits", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwTryWaits{m} }), "a writer keeps all others out")
	breaks("TryLockContext has an error of its own", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwOwnError{m} }), "a writer keeps all others out", overtaken)
	breaks("readers keep each other out", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwNoReaders{m} }), "readers share until the last is out")
	breaks("RUnlock for all", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwAllOut{m} }), "readers share until the last is out")
	breaks("Unlock of an unlocked RWMutex", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwCareless{m} }), misuse)
	breaks("the wrong Unlock unlocks", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwWrong{m} }), misuse)
	breaks("RLocker is a writer", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwWriter{m} }), "RLocker locks for reading")
	breaks("only who locked can unlock", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return &rwPersonal{FileRWMutex: m} }), "another goroutine can unlock")
	breaks("RWMutex is closed while in use", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwCloses{m} }), "Close")
	breaks("Close of a RWMutex waits in other processes", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwCloseWaits{m} }), "different names are different locks")
	breaks("Close of a RWMutex waits", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwStays{m} }), "Close")
	breaks("RWMutex waits instead of a panic", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwUnlockWaits{m} }), misuse)
	breaks("RWMutex is not closed", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwOpen{m} }), "Close")
	breaks("RWMutex leaks", rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex { return rwLeaks{m} }), "leaves no goroutines")
	breaks("RWMutex outlives its holder", rw(func(m *interlock.FileRWMutex, name string) locktest.RWMutex {
		return rwMarked{m, marker(name + ".held")}
	}),
		"killed writer frees the lock", "killed reader frees the lock", "killed at any moment")
	breaks("RWMutex's waiters outlive themselves", rw(func(m *interlock.FileRWMutex, name string) locktest.RWMutex {
		return rwTicket{m, marker(name + ".waits")}
	}), "killed waiter leaves nothing")
	breaks("RWMutex is a lease", rw(func(m *interlock.FileRWMutex, name string) locktest.RWMutex { return rwLease{m, lease(name + ".pid")} }), "stopped holder keeps the lock")
}

type rwEnded struct{ *interlock.FileRWMutex }

func (m rwEnded) LockContext(ctx context.Context) error {
	return m.FileRWMutex.LockContext(ifEnded(ctx))
}

type rwTryEnded struct{ *interlock.FileRWMutex }

func (m rwTryEnded) TryRLockContext(ctx context.Context) error {
	return m.FileRWMutex.TryRLockContext(ifEnded(ctx))
}

type rwTryFirst struct{ *interlock.FileRWMutex }

func (m rwTryFirst) TryLockContext(ctx context.Context) error {
	if !m.TryLock() {
		return interlock.ErrLocked
	}
	if ctx.Err() != nil {
		m.Unlock()
	}
	return ctx.Err()
}

type rwLater struct{ *interlock.FileRWMutex }

func (m rwLater) LockContext(ctx context.Context) error {
	err := m.FileRWMutex.LockContext(ctx)
	if err != nil {
		go swallow(m.Lock)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

func (m rwLater) RLockContext(ctx context.Context) error {
	err := m.FileRWMutex.RLockContext(ctx)
	if err != nil {
		go swallow(m.RLock)
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

type rwDeaf struct{ *interlock.FileRWMutex }

func (m rwDeaf) LockContext(ctx context.Context) error {
	if ctx.Err() == nil {
		m.Lock()
	}
	return ctx.Err()
}

type rwWraps struct{ *interlock.FileRWMutex }

func (m rwWraps) LockContext(ctx context.Context) error {
	if err := m.FileRWMutex.LockContext(ctx); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	return nil
}

type rwUnlocks struct{ *interlock.FileRWMutex }

func (m rwUnlocks) LockContext(ctx context.Context) error {
	err := m.FileRWMutex.LockContext(ctx)
	if err != nil {
		swallow(m.Unlock)
	}
	return err
}

type rwBoth struct{ *interlock.FileRWMutex }

func (m rwBoth) LockContext(ctx context.Context) error {
	if err := m.FileRWMutex.LockContext(ctx); err != nil {
		return err
	}
	time.Sleep(100 * time.Microsecond)
	return ctx.Err()
}

type rwPolls struct {
	*interlock.FileRWMutex
	pause time.Duration
}

func (m rwPolls) poll(ctx context.Context, try func(context.Context) error) error {
	for {
		err := try(ctx)
		if !errors.Is(err, interlock.ErrLocked) {
			return err
		}
		time.Sleep(m.pause)
	}
}

func (m rwPolls) LockContext(ctx context.Context) error  { return m.poll(ctx, m.TryLockContext) }
func (m rwPolls) RLockContext(ctx context.Context) error { return m.poll(ctx, m.TryRLockContext) }
func (m rwPolls) Lock()                                  { m.LockContext(context.Background()) }
func (m rwPolls) RLock()                                 { m.RLockContext(context.Background()) }

type rwCohort struct {
	*interlock.FileRWMutex
	mu      sync.Mutex
	waiting atomic.Int32
	held    bool
}

func (m *rwCohort) Lock() {
	m.waiting.Add(1)
	m.mu.Lock()
	m.waiting.Add(-1)
	if !m.held {
		m.FileRWMutex.Lock()
	}
	m.held = true
}

func (m *rwCohort) TryLock() bool {
	if !m.mu.TryLock() {
		return false
	}
	if m.held = m.held || m.FileRWMutex.TryLock(); !m.held {
		m.mu.Unlock()
	}
	return m.held
}

func (m *rwCohort) LockContext(ctx context.Context) error {
	if ctx.Err() == nil {
		m.Lock()
	}
	return ctx.Err()
}

func (m *rwCohort) Unlock() {
	if m.waiting.Load() == 0 {
		m.held = false
		m.FileRWMutex.Unlock()
	}
	m.mu.Unlock()
}

// rwOvertakes tries without regard to who waits.
type rwOvertakes struct {
	*interlock.FileRWMutex
	name string
	mu   sync.Mutex
	file *os.File
}

func (m *rwOvertakes) TryLock() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := os.OpenFile(m.name, os.O_RDWR, 0)
	if err == nil {
		err = interlock.TryLock(f)
	}
	if err == nil {
		m.file = f
	}
	return err == nil
}

func (m *rwOvertakes) Unlock() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file != nil {
		m.file.Close()
		m.file = nil
		return
	}
	m.FileRWMutex.Unlock()
}

type rwTryWaits struct{ *interlock.FileRWMutex }

func (m rwTryWaits) TryLock() bool { m.Lock(); return true }

type rwOwnError struct{ *interlock.FileRWMutex }

func (m rwOwnError) TryLockContext(ctx context.Context) error {
	err := m.FileRWMutex.TryLockContext(ctx)
	if errors.Is(err, interlock.ErrLocked) {
		err = io.EOF
	}
	return err
}

type rwNoReaders struct{ *interlock.FileRWMutex }

func (m rwNoReaders) RLock()         { m.Lock() }
func (m rwNoReaders) TryRLock() bool { return m.TryLock() }
func (m rwNoReaders) RUnlock()       { m.Unlock() }

type rwAllOut struct{ *interlock.FileRWMutex }

func (m rwAllOut) RUnlock() {
	swallow(func() {
		for {
			m.FileRWMutex.RUnlock()
		}
	})
}

type rwCareless struct{ *interlock.FileRWMutex }

func (m rwCareless) Unlock() { swallow(m.FileRWMutex.Unlock) }

type rwWrong struct{ *interlock.FileRWMutex }

func (m rwWrong) Unlock() {
	swallow(m.RUnlock)
	m.FileRWMutex.Unlock()
}

type rwWriter struct{ *interlock.FileRWMutex }

func (m rwWriter) RLocker() sync.Locker { return m.FileRWMutex }

type rwPersonal struct {
	*interlock.FileRWMutex
	by atomic.Value
}

func goroutine() string {
	buf := make([]byte, 64)
	return strings.Fields(string(buf[:runtime.Stack(buf, false)]))[1]
}

func (m *rwPersonal) Lock() { m.FileRWMutex.Lock(); m.by.Store(goroutine()) }
func (m *rwPersonal) Unlock() {
	if m.by.Load() != goroutine() {
		panic("not by who locked")
	}
	m.FileRWMutex.Unlock()
}

type rwCloses struct{ *interlock.FileRWMutex }

func (m rwCloses) Close() error { m.FileRWMutex.Close(); return nil }

// elsewhere reports whether this is another process than the one that runs the tests.
func elsewhere() bool { return len(os.Args) > 1 && os.Args[1] == "locktest" }

type rwCloseWaits struct{ *interlock.FileRWMutex }

func (m rwCloseWaits) Close() error {
	if elsewhere() {
		select {}
	}
	return m.FileRWMutex.Close()
}

type rwStays struct{ *interlock.FileRWMutex }

func (m rwStays) Close() error {
	for m.FileRWMutex.Close() != nil {
		time.Sleep(time.Millisecond)
	}
	return nil
}

type rwUnlockWaits struct{ *interlock.FileRWMutex }

func (m rwUnlockWaits) Unlock() {
	defer func() {
		if recover() != nil {
			select {}
		}
	}()
	m.FileRWMutex.Unlock()
}

type rwOpen struct{ *interlock.FileRWMutex }

func (m rwOpen) Close() error { return nil }

type rwLeaks struct{ *interlock.FileRWMutex }

func (m rwLeaks) LockContext(ctx context.Context) error {
	go func() { select {} }()
	return m.FileRWMutex.LockContext(ctx)
}

type rwMarked struct {
	*interlock.FileRWMutex
	held marker
}

func (m rwMarked) lock(lock func()) {
	lock()
	m.held.set(context.Background())
}
func (m rwMarked) unlock(unlock func()) {
	m.held.clear()
	unlock()
}
func (m rwMarked) Lock()    { m.lock(m.FileRWMutex.Lock) }
func (m rwMarked) RLock()   { m.lock(m.FileRWMutex.RLock) }
func (m rwMarked) Unlock()  { m.unlock(m.FileRWMutex.Unlock) }
func (m rwMarked) RUnlock() { m.unlock(m.FileRWMutex.RUnlock) }

func (m rwMarked) LockContext(ctx context.Context) error {
	err := m.FileRWMutex.LockContext(ctx)
	if err == nil {
		m.held.set(context.Background())
	}
	return err
}

type rwTicket struct {
	*interlock.FileRWMutex
	waits marker
}

func (m rwTicket) LockContext(ctx context.Context) error {
	if err := m.waits.set(ctx); err != nil {
		return err
	}
	defer m.waits.clear()
	return m.FileRWMutex.LockContext(ctx)
}
func (m rwTicket) Lock() { m.LockContext(context.Background()) }

type rwLease struct {
	*interlock.FileRWMutex
	held lease
}

func (m rwLease) Lock()   { m.held.wait(m.LockContext) }
func (m rwLease) Unlock() { swallow(m.FileRWMutex.Unlock) }
