package locktest_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/locktest"
	"go.uber.org/goleak"
)

// files are the locks of package interlock.
var files = locktest.Locks{
	RWMutex: func(name string) (locktest.RWMutex, error) { return interlock.NewFileRWMutex(name) },
	RMutex:  func(name string) (locktest.RMutex, error) { return interlock.NewFileRMutex(name) },
	Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
		return interlock.NewFileSemaphore(name, size)
	},
}

// locks are the locks that TestLocks tests.
var locks = files

// usageEnv names the usage of package locktest that this process shows, if it
// is set.
const usageEnv = "LOCKTEST_USAGE"

// A usage is a way to use package locktest.
type usage struct {
	main *locktest.Locks // the argument of Main, or nil if Main is not called
	test locktest.Locks  // the argument of Test
	says string          // text that the output must contain
}

var usages = map[string]usage{
	"MainNotCalled":         {nil, files, "locktest.Main was not called"},
	"OtherProcessRunsTests": {&files, files, "a process that a test started must not run tests"},
	"NothingToTest":         {&files, locktest.Locks{}, "nothing to test"},
	"MainWithoutRWMutex":    {&locktest.Locks{RMutex: files.RMutex, Semaphore: files.Semaphore}, files, "other processes have no RWMutex"},
	"MainWithoutRMutex":     {&locktest.Locks{RWMutex: files.RWMutex, Semaphore: files.Semaphore}, files, "other processes have no RMutex"},
	"MainWithoutSemaphore":  {&locktest.Locks{RWMutex: files.RWMutex, RMutex: files.RMutex}, files, "other processes have no Semaphore"},
	"OneKindTested":         {&files, locktest.Locks{RWMutex: files.RWMutex}, "PASS"},
	"ImplementationPrints":  {&printing, printing, "PASS"},
	"KilledProcessLingers":  {&lingering, lingering, "PASS"},
}

// printing prints lines that look like the answers of another process, and one
// line without an end.
var printing = brokenRW(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex {
	fmt.Print(`{"ID":0,"Error":"none"}` + "\n" + `{"ID":1000}` + "\n" + `{"level":"INFO"}`)
	return m
})

// lingering frees the semaphore of a killed process after a delay.
var lingering = locktest.Locks{Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
	lease := name + ".lease"
	if inRemoteProcess() {
		os.WriteFile(lease, nil, 0o600)
	} else if info, err := os.Stat(lease); err == nil && time.Since(info.ModTime()) < 300*time.Millisecond {
		return nil, fmt.Errorf("%s: its holder may still run", lease)
	}
	return interlock.NewFileSemaphore(name, size)
}}

func TestUsage(t *testing.T) {
	if os.Getenv(usageEnv) != "" {
		t.Fatal("this test must not run in a process that it started")
	}
	for name, u := range usages {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(interlock.Must(os.Executable()),
				"-test.run=^TestLocks$/^(RWMutex|Semaphore)$/^(DifferentNamesAreDifferentLocks|UnusedSemaphoreAcceptsNewSize)$",
				"-test.timeout=1m")
			cmd.Env = append(os.Environ(), usageEnv+"="+name)
			if name == "OtherProcessRunsTests" {
				cmd.Env = append(cmd.Env, "INTERLOCK_PROC=locktest")
			}
			out, err := cmd.CombinedOutput()
			if !strings.Contains(string(out), u.says) || (err == nil) != (u.says == "PASS") {
				t.Errorf("%v, want %q:\n%s", err, u.says, out)
			}
		})
	}
}

func TestMain(m *testing.M) {
	main := &locks
	if u, ok := usages[os.Getenv(usageEnv)]; ok {
		main, locks = u.main, u.test
	}
	if b, ok := brokenLocks[os.Getenv(brokenEnv)]; ok {
		locks = b.locks
		locktest.SetTimeout(time.Second)
	}
	if main != nil {
		locktest.Main(*main)
	}
	// The tests mostly sleep: run more of them at once than there are cores,
	// unless the flag -parallel says otherwise.
	flag.Set("test.parallel", "8")
	tmp := interlock.Must(os.MkdirTemp("", "locktest-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

func TestLocks(t *testing.T) { locktest.Test(t, locks) }
