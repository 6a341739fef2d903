package locktest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/locktest"
)

// brokenEnv names the broken lock that TestLocks tests, if it is set.
const brokenEnv = "LOCKTEST_BROKEN"

// A brokenLock is a lock of package interlock with one mistake added.
type brokenLock struct {
	locks   locktest.Locks
	failing []string // subtests of its kind of lock that must fail
}

var brokenLocks = map[string]brokenLock{}

func register(name string, locks locktest.Locks, failing ...string) {
	if _, ok := brokenLocks[name]; ok {
		panic("two broken locks are named " + name)
	}
	brokenLocks[name] = brokenLock{locks, failing}
}

// TestBrokenLocksAreCaught proves that the tests can fail: it runs them on
// locks with known mistakes. Unless the tests run at full length, it picks a
// third of the broken locks at random.
func TestBrokenLocksAreCaught(t *testing.T) {
	self := interlock.Must(os.Executable())
	for name, b := range brokenLocks {
		if !longtest.Enabled() && rand.N(3) > 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind := "RWMutex"
			if b.locks.RMutex != nil {
				kind = "RMutex"
			} else if b.locks.Semaphore != nil {
				kind = "Semaphore"
			}
			if strings.HasSuffix(name, "IsLease") && runtime.GOOS != "linux" {
				t.Skip("this broken lock needs Linux to recognize a stopped process")
			}
			args := []string{
				"-test.run=^TestLocks$/^" + kind + "$/^(" + strings.Join(b.failing, "|") + ")$",
				"-test.parallel=20",
				"-test.timeout=1m",
			}
			var out []byte
			missed := b.failing
			for range 5 { // on a busy machine, a test may miss a mistake
				cmd := exec.Command(self, args...)
				cmd.Env = append(os.Environ(), brokenEnv+"="+name, "GORACE=atexit_sleep_ms=0")
				out, _ = cmd.CombinedOutput()
				missed = slices.DeleteFunc(slices.Clone(missed), func(test string) bool {
					return strings.Contains(string(out), "--- FAIL: TestLocks/"+kind+"/"+test+" ")
				})
				if len(missed) == 0 {
					break
				}
			}
			if len(missed) > 0 || strings.Contains(string(out), "\npanic: ") {
				t.Errorf("these tests do not catch it: %q\n%s", missed, out)
			}
			if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

func brokenRW(wrap func(m *interlock.FileRWMutex, name string) locktest.RWMutex) locktest.Locks {
	return locktest.Locks{RWMutex: func(name string) (locktest.RWMutex, error) {
		m, err := interlock.NewFileRWMutex(name)
		if err != nil {
			return nil, err
		}
		return wrap(m, name), nil
	}}
}

func registerRW(name string, wrap func(m *interlock.FileRWMutex, name string) locktest.RWMutex, failing ...string) {
	register(name, brokenRW(wrap), failing...)
}

func registerR(name string, wrap func(m *interlock.FileRMutex, name string) locktest.RMutex, failing ...string) {
	register(name, locktest.Locks{RMutex: func(name string) (locktest.RMutex, error) {
		m, err := interlock.NewFileRMutex(name)
		if err != nil {
			return nil, err
		}
		return wrap(m, name), nil
	}}, failing...)
}

func registerSem(name string, wrap func(s *interlock.FileSemaphore, name string) locktest.Semaphore, failing ...string) {
	register(name, locktest.Locks{Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
		s, err := interlock.NewFileSemaphore(name, size)
		if err != nil {
			return nil, err
		}
		return wrap(s, name), nil
	}}, failing...)
}

// renamed returns locks of each kind that use another name than the given one.
func renamed(rename func(name string) string) (rw, r, sem locktest.Locks) {
	rw.RWMutex = func(name string) (locktest.RWMutex, error) { return files.RWMutex(rename(name)) }
	r.RMutex = func(name string) (locktest.RMutex, error) { return files.RMutex(rename(name)) }
	sem.Semaphore = func(name string, size int64) (locktest.Semaphore, error) {
		return files.Semaphore(rename(name), size)
	}
	return rw, r, sem
}

func init() {
	perProcess := func(name string) string { return fmt.Sprint(name, os.Getpid()) }
	var objects atomic.Int64
	perObject := func(name string) string { return fmt.Sprint(perProcess(name), objects.Add(1)) }
	same := func(name string) string { return filepath.Join(filepath.Dir(name), "same") }

	rw, r, sem := renamed(perProcess)
	register("RWMutexPerProcess", rw, "ProcessesExcludeEachOther", "WriterExcludesOthers")
	register("RMutexPerProcess", r,
		"ProcessesExcludeEachOther", "OnlyOwnerLocksAgain", "OtherOwnerWaitsForLastUnlock")
	register("SemaphorePerProcess", sem, "NeverExceedsSize", "AcquireIsAllOrNothing", "ReleaseWakesWaiter")

	rw, r, sem = renamed(perObject)
	register("RWMutexPerObject", rw,
		"GoroutinesExcludeEachOther", "UnlockFromAnotherGoroutine", "ExclusiveDespiteCancels")
	register("RMutexPerObject", r, "OwnersExcludeEachOther")
	register("SemaphorePerObject", sem, "ReleaseHappensBeforeAcquire", "UnitsAreInterchangeable")

	rw, r, sem = renamed(same)
	register("RWMutexIgnoresName", rw, "DifferentNamesAreDifferentLocks")
	register("RMutexIgnoresName", r, "DifferentNamesAreDifferentLocks", "DoNestsAcrossLocks")
	register("SemaphoreIgnoresName", sem, "DifferentNamesAreDifferentSemaphores")
}

// inRemoteProcess reports whether a test started this process.
func inRemoteProcess() bool { return len(os.Args) > 1 && os.Args[1] == "locktest" }

// ignoreDone returns ctx, or a context that never ends if ctx is done.
func ignoreDone(ctx context.Context) context.Context {
	if ctx.Err() != nil {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// ignorePanic runs call and recovers from its panic.
func ignorePanic(call func()) {
	defer func() { recover() }()
	call()
}

// A marker is the path of a file that exists while a process does something.
// The file stays if the process is killed.
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

// A lease is the path of a file that names the process that holds a lock. The
// process loses the lock while it is stopped.
type lease string

func (l lease) take() { os.WriteFile(string(l), []byte(fmt.Sprint(os.Getpid())), 0o600) }

func (l lease) lost() bool {
	pid, _ := os.ReadFile(string(l))
	stat, _ := os.ReadFile("/proc/" + string(pid) + "/stat")
	return strings.Contains(string(stat), ") T ")
}

// wait repeats call until it succeeds or the lease is lost.
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
