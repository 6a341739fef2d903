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
	"dies": func([]string) { panic("the child dies") },
	"refused": func(args []string) {
		proc.Refuse(unix.SYS_SECCOMP, unix.EPERM, -1)
		Child(nil)(args)
	},
	"child": Child(scenarios),
}

var scenarios = Scenarios{
	"ListedCall":      func(c *Case) { c.Faults(func() { os.Getwd() }) },
	"UnlistedCall":    func(c *Case) { c.Faults(func() { unix.Statfs(c.Dir, new(unix.Statfs_t)) }) },
	"UnlistedCommand": func(c *Case) { c.Faults(func() { lockByProcess(c) }) },
	"Aside":           func(c *Case) { c.Faults(func() { os.Getwd(); c.Aside(func() { lockByProcess(c) }) }) },
}

// lockByProcess locks a file by a command of fcntl(2) that is not in the table.
func lockByProcess(c *Case) {
	f, err := os.Create(c.Path("file"))
	if err != nil {
		return // this was the call that fails
	}
	unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	f.Close()
}

func TestMain(m *testing.M) {
	proc.Run(children)
	os.Exit(m.Run())
}

// TestExplore runs only in processes that TestExploreReportsMistakes starts.
func TestExplore(t *testing.T) {
	function, ok := os.LookupEnv("FAULT_CHILD")
	if !ok {
		t.Skip("TestExploreReportsMistakes runs it")
	}
	Explore(t, function, scenarios)
}

// TestExploreReportsMistakes checks that Explore fails if the child dies or
// makes an unlisted call, and skips only if the kernel does not allow the
// filter.
func TestExploreReportsMistakes(t *testing.T) {
	if len(calls) == 0 {
		t.Skip("there is no table of system calls for this architecture")
	}
	for name, c := range map[string]struct {
		child, need, scenario string
		says                  []string
	}{
		"ChildDies":       {"dies", "", ".*", []string{"--- FAIL: TestExplore ", "the child died at its start: exit status 2"}},
		"FilterRefused":   {"refused", "", ".*", []string{"--- SKIP: TestExplore ", "seccomp: operation not permitted"}},
		"FilterNeeded":    {"refused", "1", ".*", []string{"--- FAIL: TestExplore ", "seccomp: operation not permitted"}},
		"ListedCall":      {"child", "", "ListedCall", []string{"PASS"}},
		"Aside":           {"child", "", "Aside", []string{"PASS"}},
		"UnlistedCall":    {"child", "", "UnlistedCall", []string{"--- FAIL: TestExplore/UnlistedCall ", "statfs is not in the table"}},
		"UnlistedCommand": {"child", "", "UnlistedCommand", []string{"--- FAIL: TestExplore/UnlistedCommand ", "fcntl(./file, 0x6) is not in the table"}},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^TestExplore$/^"+c.scenario+"$")
			cmd.Env = append(os.Environ(), "FAULT_CHILD="+c.child, "INTERLOCK_LONG=1")
			if c.child == "refused" {
				cmd.Env = append(cmd.Env, "INTERLOCK_NEED="+c.need)
			}
			out, _ := cmd.CombinedOutput()
			if strings.Contains(string(out), "not tried on this file system") || c.child == "child" && strings.Contains(string(out), "--- SKIP: TestExplore ") {
				t.Skipf("%s", out)
			}
			for _, text := range c.says {
				if !strings.Contains(string(out), text) {
					t.Errorf("output without %q:\n%s", text, out)
				}
			}
		})
	}
}
