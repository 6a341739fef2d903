package fault

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// Explore runs scenarios with every possible failure. It is skipped unless
// tests run at full length (see package longtest) or the environment variable
// INTERLOCK_FAULTS is set.
//
// The child is a process that runs the named function, which must be one that
// [Child] returned, with env added to its environment.
//
// Every call fails, but only with some of its errors, chosen at random. If
// INTERLOCK_FAULTS is "all", every call fails with all its errors.
func Explore(t *testing.T, function string, scenarios Scenarios, env ...string) {
	if os.Getenv("INTERLOCK_FAULTS") == "" {
		longtest.Skip(t)
	}
	e := newExplorer(t, function, env)
	for name := range scenarios {
		t.Run(name, func(t *testing.T) { e.explore(t, name) })
	}
	t.Logf("%d calls, %d failures", e.calls, e.failures)
}

// One runs a scenario with one failure. The call that fails with errno is the
// last one that has the given name and whose description contains detail.
//
// If the scenario does not make such a call, One tries again and gives
// functions that are passed to [Case.WhenWaiting] more time.
func One(t *testing.T, function, scenario, name, detail string, errno unix.Errno) {
	t.Helper()
	e := newExplorer(t, function, nil)
	means := func(call string) bool { return strings.HasPrefix(call, name+"(") && strings.Contains(call, detail) }
	var calls, problems []string
	// A scenario that waits may make more or fewer calls the next time. On a
	// busy machine it may not even wait in time.
	for try := range 20 {
		e.s.waitLimit = withoutWait << min(try, 7)
		calls, _, problems = e.run(t, scenario, 0, 0)
		n := 0
		for _, c := range calls {
			if means(c) {
				n++
			}
		}
		if n == 0 || len(problems) > 0 {
			continue
		}
		e.s.errno, e.s.only = errno, means
		_, failed, problems := e.run(t, scenario, n, 0)
		e.s.errno, e.s.only = 0, nil
		if failed == nil {
			continue
		}
		for _, p := range problems {
			t.Errorf("%s fails with %s: %s", failed.what, unix.ErrnoName(errno), p)
		}
		return
	}
	t.Fatalf("no call %s(%s) among these calls, or the scenario has problems without a failure: %s %s", name, detail, calls, problems)
}

// newExplorer starts a child. It skips the test where that is not possible.
func newExplorer(t *testing.T, function string, env []string) *explorer {
	if len(calls) == 0 {
		t.Skip("there is no table of system calls for this architecture")
	}
	e := &explorer{function: function, env: env, base: t.TempDir()}
	if resolved, err := filepath.EvalSymlinks(e.base); err == nil {
		e.base = resolved
	}
	// Other file systems may differ: some leave a file behind when an open file
	// is removed, or handle locks in their own way.
	local := []uint32{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC}
	var st unix.Statfs_t
	if err := unix.Statfs(e.base, &st); err != nil || !slices.Contains(local, uint32(st.Type)) {
		t.Skipf("not tried on this file system (%#x, %v)", st.Type, err)
	}
	e.start(t)
	t.Cleanup(func() {
		if e.child == nil {
			return
		}
		if err := e.child.Close(); err != nil { // for example, the race detector found a race
			t.Errorf("the child failed: %v", err)
		}
		<-e.s.ended
	})
	return e
}

// An explorer runs scenarios in a child.
type explorer struct {
	function string
	env      []string
	base     string        // the parent of the directories of all runs
	child    *proc.Process // nil if it must be started again
	s        *supervisor   // of the child
	other    otherProcess

	// rootFD is the child's descriptor of "/", or -1 if it has none. Package
	// interlock keeps one to cancel waits.
	rootFD int32

	runs, calls, failures int
}

// start starts the child. If the kernel does not allow the filter, start skips
// the test, or fails it if INTERLOCK_NEED is set.
func (e *explorer) start(t *testing.T) {
	t.Helper()
	e.rootFD = -1
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "socket")
	cmd := proc.Command(e.function)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(append(cmd.Env, "GODEBUG=asyncpreemptoff=1", "GORACE=atexit_sleep_ms=0", "GOTRACEBACK=all"), e.env...)
	child := proc.StartCommand(cmd)
	theirs.Close()
	t.Cleanup(func() {
		if e.child != child {
			child.Kill()
		}
	})
	text, control := make([]byte, 200), make([]byte, unix.CmsgSpace(4))
	textLen, controlLen, _, _, err := unix.Recvmsg(pair[0], text, control, unix.MSG_CMSG_CLOEXEC)
	switch {
	case err != nil:
		t.Fatal(err)
	case textLen == 0:
		child.Kill()
		t.Fatal("the child died at its start:", child.Wait())
	case controlLen == 0:
		need.Skip(t, "cannot make system calls fail here:", string(text[:textLen]))
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil || len(messages) != 1 {
		t.Fatal("the child sent no descriptor:", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	if e.s, err = newSupervisor(fds[0], child.Pid()); err != nil {
		t.Fatal(err)
	}
	if line, _ := child.Line(childTimeout); line != "ready" {
		t.Fatalf("the child printed %q at its start, want %q", line, "ready")
	}
	e.child = child
	for fd := range e.s.descriptors() {
		e.s.initial[fd] = true
	}
}

// stop kills the child. The next run starts another one.
func (e *explorer) stop() {
	e.child.Kill()
	<-e.s.ended
	e.child = nil
}

const (
	sample       = 2                    // errors per call by default, or half if a run takes long
	long         = 5 * time.Millisecond // a run that takes long
	repeated     = 3                    // a call that is made more often counts as repeated
	maxCalls     = 500                  // calls of one run
	maxProblems  = 10                   // failures with problems, of one scenario
	childTimeout = 60 * time.Second     // the longest run
	settleTime   = 5 * time.Second      // how long a lock or descriptor may stay after a run
)

// explore runs a scenario with all failures.
func (e *explorer) explore(t *testing.T, name string) {
	begin := time.Now()
	calls, _, problems := e.run(t, name, 0, 0)
	sample := sample
	if time.Since(begin) > long {
		sample /= 2
	}
	for _, p := range problems {
		t.Errorf("without a failure: %s", p)
	}
	if len(calls) == 0 {
		t.Error("no calls")
	}
	if t.Failed() {
		return
	}
	t.Logf("%d calls: %s", len(calls), strings.Join(calls, " "))
	e.calls += len(calls)
	all := os.Getenv("INTERLOCK_FAULTS") == "all"
	seen := make(map[string]int)
	bad, failures, missed := 0, 0, 0
	k := 1
	for ; k <= maxCalls && bad < maxProblems; k++ {
		// Of a call that is repeated many times, fail only a part.
		if !all && k <= len(calls) {
			if seen[calls[k-1]]++; seen[calls[k-1]] > repeated && rand.IntN(4) > 0 {
				continue
			}
		}
		choices := 1
		first := rand.IntN(100)
		reached := false
		for choice := 0; choice < choices; choice++ {
			_, failed, problems := e.run(t, name, k, first+choice)
			if failed == nil {
				// This run made fewer calls. The next may make more.
				if missed++; missed < 3 && !reached {
					choice--
					continue
				}
				break
			}
			reached, missed = true, 0
			failures++
			if choices = failed.choices; !all {
				choices = min(choices, sample)
			}
			if len(problems) > 0 {
				bad++
			}
			for _, p := range problems {
				t.Errorf("call %d, %s, fails with %s: %s", k, failed.what, unix.ErrnoName(failed.errno), p)
			}
		}
		if !reached {
			// The number of calls varies between runs, most of all on a busy
			// machine, but rarely by half.
			few := false
			for n := 0; n < 20 && !few; n++ {
				calls, _, _ = e.run(t, name, 0, 0)
				few = k > len(calls)/2
			}
			if !few {
				t.Errorf("only %d of %d calls could be made to fail", k-1, len(calls))
			}
			break
		}
	}
	if k > maxCalls {
		t.Errorf("the scenario makes too many calls: only the first %d have failed", maxCalls)
	}
	t.Logf("the last call that failed was number %d of %d", k-1, len(calls))
	e.failures += failures
	t.Logf("%d failures in %v", failures, time.Since(begin).Round(time.Millisecond))
}

// run runs a scenario in which the target-th call fails, or none if target is
// 0.
func (e *explorer) run(t *testing.T, name string, target, choice int) (calls []string, failed *failure, problems []string) {
	if e.child == nil {
		e.start(t)
	}
	e.runs++
	dir := filepath.Join(e.base, strconv.Itoa(e.runs))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, nil, []string{err.Error()}
	}
	defer os.RemoveAll(dir)
	defer e.other.close()
	before := e.s.descriptors()
	e.s.begin(dir, target, choice)
	e.child.Say(name + "\t" + dir)
	for {
		line, ok := e.child.Line(childTimeout)
		what, rest, _ := strings.Cut(line, " ")
		switch {
		case ok && what == "other":
			if err := e.other.do(e.s, rest); err != nil {
				e.child.Say(err.Error())
			} else {
				e.child.Say("ok")
			}
			continue
		case ok && what == "done":
			if err := json.Unmarshal([]byte(rest), &problems); err != nil {
				problems = append(problems, err.Error())
			}
		default:
			problems = append(problems, fmt.Sprintf("the child hangs or has died; its last output was %q", line))
			e.child.Signal(syscall.SIGQUIT) // prints the stacks of its goroutines
			e.child.Line(time.Second)
			calls, failed = e.s.result()
			e.stop()
			return calls, failed, problems
		}
		break
	}
	calls, failed = e.s.result()
	problems = append(problems, e.s.unlistedProblems()...)
	e.s.flush()
	e.other.close()
	// A call that was abandoned on a file system that is not known to be local
	// may still be running.
	var left []string
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if left = append(locksIn(dir), e.leftOpen(before, dir)...); len(left) == 0 || time.Since(begin) > settleTime {
			break
		}
	}
	return calls, failed, append(problems, left...)
}

// leftOpen returns a problem for each descriptor that the child did not have
// before the run.
func (e *explorer) leftOpen(before map[int32]string, dir string) (problems []string) {
	for fd, what := range e.s.descriptors() {
		if what == "/" && (e.rootFD < 0 || e.rootFD == fd) {
			e.rootFD = fd
			continue
		}
		if _, ok := before[fd]; !ok {
			problems = append(problems, fmt.Sprintf("descriptor %d is still open: %s", fd, strings.ReplaceAll(what, dir, ".")))
		}
	}
	return problems
}

// locksIn returns a problem for each file in a directory that is still locked.
func locksIn(dir string) (problems []string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v", d.Name(), err))
			return nil
		}
		defer unix.Close(fd)
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			problems = append(problems, fmt.Sprintf("%s is still locked: %v", d.Name(), err))
		}
		unix.Flock(fd, unix.LOCK_UN)
		if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			problems = append(problems, fmt.Sprintf("a byte of %s is still locked: %v", d.Name(), err))
		}
		return nil
	})
	return problems
}
