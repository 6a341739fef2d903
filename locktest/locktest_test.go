package locktest_test

import (
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

// locks are those to be tested.
var locks = files

// usageEnv names the usage that the test binary makes of package locktest.
const usageEnv = "LOCKTEST_USAGE"

// usages are ways to use the package: what Main is given, if it is called at all, what Test is, and what is said then.
var usages = map[string]struct {
	main *locktest.Locks
	test locktest.Locks
	says string
}{
	"Main is forgotten":              {nil, files, "locktest.Main must be the first thing in TestMain"},
	"another process runs the tests": {&files, files, "this process was not to run tests"},
	"nothing to test":                {&files, locktest.Locks{}, "nothing to test"},
	"Main lacks RWMutex":             {&locktest.Locks{RMutex: files.RMutex, Semaphore: files.Semaphore}, files, "other processes have no RWMutex"},
	"Main lacks RMutex":              {&locktest.Locks{RWMutex: files.RWMutex, Semaphore: files.Semaphore}, files, "other processes have no RMutex"},
	"Main lacks Semaphore":           {&locktest.Locks{RWMutex: files.RWMutex, RMutex: files.RMutex}, files, "other processes have no Semaphore"},
	"a kind is not tested":           {&files, locktest.Locks{RWMutex: files.RWMutex}, "PASS"},
	"an implementation prints":       {&talkative, talkative, "PASS"},
	"it takes time to be dead":       {&tardy, tardy, "PASS"},
}

// talkative prints what looks like an answer of another process, and then does not end its line.
var talkative = rw(func(m *interlock.FileRWMutex, _ string) locktest.RWMutex {
	fmt.Print(`{"ID":0,"Error":"none"}` + "\n" + `{"ID":1000}` + "\n" + `{"level":"INFO"}`)
	return m
})

// tardy lets a process of another size keep its semaphore for a while after its death.
var tardy = locktest.Locks{Semaphore: func(name string, size int64) (locktest.Semaphore, error) {
	lease := name + ".lease"
	if elsewhere() {
		os.WriteFile(lease, nil, 0o600)
	} else if info, err := os.Stat(lease); err == nil && time.Since(info.ModTime()) < 300*time.Millisecond {
		return nil, fmt.Errorf("%s: it may live", lease)
	}
	return interlock.NewFileSemaphore(name, size)
}}

func TestUsage(t *testing.T) {
	if os.Getenv(usageEnv) != "" {
		t.Fatal("it starts itself")
	}
	for name, u := range usages {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(interlock.Must(os.Executable()), "-test.run=^TestLocks$/^(RWMutex|Semaphore)$/^(different_names_are_different_locks|a_new_size_.*)$", "-test.timeout=1m")
			cmd.Env = append(os.Environ(), usageEnv+"="+name)
			if name == "another process runs the tests" {
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
	if b, ok := broken[os.Getenv(brokenEnv)]; ok {
		locks = b.locks
		locktest.SetPatience(time.Second)
	}
	if main != nil {
		locktest.Main(*main)
	}
	tmp := interlock.Must(os.MkdirTemp("", "locktest-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

func TestLocks(t *testing.T) {
	if testing.Short() {
		t.Skip("takes long")
	}
	locktest.Test(t, locks)
}
