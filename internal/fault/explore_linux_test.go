package fault

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

var children = map[string]proc.Func{
	"dies": func([]string) { panic("at once") },
	"refused": func(args []string) {
		proc.Refuse(unix.SYS_SECCOMP, unix.EPERM, -1)
		Child(nil)(args)
	},
	"child": Child(scenarios),
}

var scenarios = Scenarios{
	"in the table":    func(c *Case) { c.Faults(func() { os.Getwd() }) },
	"another call":    func(c *Case) { c.Faults(func() { unix.Statfs(c.Dir, new(unix.Statfs_t)) }) },
	"another command": func(c *Case) { c.Faults(func() { lockByProcess(c) }) },
	"aside":           func(c *Case) { c.Faults(func() { os.Getwd(); c.Aside(func() { lockByProcess(c) }) }) },
}

func lockByProcess(c *Case) {
	f, err := os.Create(c.Path("file"))
	if err != nil {
		return // it has failed
	}
	unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	f.Close()
}

func TestMain(m *testing.M) {
	proc.Run(children)
	os.Exit(m.Run())
}

// TestExplore is what TestNothingPassesUnseen runs in other processes.
func TestExplore(t *testing.T) {
	function, ok := os.LookupEnv("FAULT_CHILD")
	if !ok {
		t.Skip("TestNothingPassesUnseen runs it")
	}
	Explore(t, function, scenarios)
}

// Where a child does not start, that is no reason to skip its test; and calls that are not made to fail are a mistake.
func TestNothingPassesUnseen(t *testing.T) {
	if len(calls) == 0 {
		t.Skip("the system calls of this architecture are not known here")
	}
	for name, c := range map[string]struct {
		child, need, scenario string
		says                  []string
	}{
		"it dies":                {"dies", "", ".*", []string{"--- FAIL: TestExplore ", "has died at its start: exit status 2"}},
		"it is refused":          {"refused", "", ".*", []string{"--- SKIP: TestExplore ", "seccomp: operation not permitted"}},
		"it must not be refused": {"refused", "1", ".*", []string{"--- FAIL: TestExplore ", "seccomp: operation not permitted"}},
		"in the table":           {"child", "", "in_the_table", []string{"PASS"}},
		"aside":                  {"child", "", "aside", []string{"PASS"}},
		"another call":           {"child", "", "another_call", []string{"--- FAIL: TestExplore/another_call ", "statfs is not in the table"}},
		"another command":        {"child", "", "another_command", []string{"--- FAIL: TestExplore/another_command ", "fcntl(./file, 0x6) is not in the table"}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.v", "-test.short=false", "-test.run=^TestExplore$/^"+c.scenario+"$")
			cmd.Env = append(os.Environ(), "FAULT_CHILD="+c.child)
			if c.child == "refused" {
				cmd.Env = append(cmd.Env, "INTERLOCK_NEED="+c.need)
			}
			out, _ := cmd.CombinedOutput()
			if strings.Contains(string(out), "on this file system") || c.child == "child" && strings.Contains(string(out), "--- SKIP: TestExplore ") {
				t.Skipf("%s", out)
			}
			for _, text := range c.says {
				if !strings.Contains(string(out), text) {
					t.Errorf("it does not say %q:\n%s", text, out)
				}
			}
		})
	}
}
