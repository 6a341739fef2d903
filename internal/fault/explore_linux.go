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

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// Explore runs scenarios with all failures that there are. The function is the [Child] in a process of
// its own, with that added to its environment.
//
// By default every call fails, but with some of its errors only, others each time. With INTERLOCK_FAULTS=all in the environment
// it fails with each. With -short it does not run.
func Explore(t *testing.T, function string, scenarios Scenarios, env ...string) {
	if testing.Short() {
		t.Skip("takes long")
	}
	e := newExplorer(t, function, env)
	for name := range scenarios {
		t.Run(name, func(t *testing.T) { e.explore(t, name) })
	}
	t.Logf("%d calls, %d failures", e.calls, e.failures)
}

// One runs a scenario with one failure: of the last call of that name with that in its description. What the scenario does
// [Case.WhenWaiting] is done then.
func One(t *testing.T, function, scenario, name, detail string, errno unix.Errno) {
	t.Helper()
	e := newExplorer(t, function, nil)
	means := func(call string) bool { return strings.HasPrefix(call, name+"(") && strings.Contains(call, detail) }
	var calls, problems []string
	for try := range 20 { // who waits may make more calls the next time, or fewer; or not have waited yet on a busy machine
		e.s.unseen = withoutWait << min(try, 7)
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
	t.Fatalf("it is not among these calls, or others fail each time: %s %s", calls, problems)
}

// newExplorer skips the test where it cannot be.
func newExplorer(t *testing.T, function string, env []string) *explorer {
	if len(calls) == 0 {
		t.Skip("the system calls of this architecture are not known here")
	}
	e := &explorer{function: function, env: env, base: t.TempDir()}
	if resolved, err := filepath.EvalSymlinks(e.base); err == nil {
		e.base = resolved
	}
	// What others leave behind when a file is removed that is open, and what they do with locks, is another matter.
	local := []uint32{unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC}
	var st unix.Statfs_t
	if err := unix.Statfs(e.base, &st); err != nil || !slices.Contains(local, uint32(st.Type)) {
		t.Skipf("on this file system (%#x, %v) it has not been tried", st.Type, err)
	}
	e.start(t)
	t.Cleanup(func() {
		if e.child == nil {
			return
		}
		if err := e.child.Close(); err != nil { // the race detector says so too
			t.Errorf("the child: %v", err)
		}
		<-e.s.ended
	})
	return e
}

type explorer struct {
	function string
	env      []string
	base     string // directory
	child    *proc.Process
	s        *supervisor
	other    other

	ender int32 // the child's descriptor of "/", or -1

	runs, calls, failures int
}

// start starts the child. Where a child may not make its calls wait for us, it skips the test, unless INTERLOCK_NEED is set.
func (e *explorer) start(t *testing.T) {
	t.Helper()
	e.ender = -1
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
		t.Fatal("the child has died at its start:", child.Wait())
	case controlLen == 0 && os.Getenv("INTERLOCK_NEED") != "":
		t.Fatalf("system calls cannot be made to fail here: %s", text[:textLen])
	case controlLen == 0:
		t.Skipf("system calls cannot be made to fail here: %s", text[:textLen])
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlLen])
	if err != nil || len(messages) != 1 {
		t.Fatal("no descriptor:", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	if e.s, err = newSupervisor(fds[0], child.Pid()); err != nil {
		t.Fatal(err)
	}
	if line, _ := child.Line(patience); line != "ready" {
		t.Fatalf("the child says %q at its start", line)
	}
	e.child = child
	for fd := range e.s.descriptors() {
		e.s.initial[fd] = true
	}
}

// stop kills the child. The next run starts another.
func (e *explorer) stop() {
	e.child.Kill()
	<-e.s.ended
	e.child = nil
}

// How much of a scenario is explored.
const (
	sample      = 2 // how many errors of each call by default; half as many if a run takes long
	long        = 5 * time.Millisecond
	repeated    = 3   // how often a call is made before it counts as repeated
	maxCalls    = 500 // of one run
	maxProblems = 10  // of one scenario
	patience    = 60 * time.Second
	settles     = 5 * time.Second // what is held or open for longer is so for ever
)

// explore runs a scenario with all its failures.
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
		// Of a call that is repeated again and again, a part will do.
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
				// In this run there were fewer calls, which need not be so in the next.
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
			// How many calls a run makes differs, above all on a busy machine; but hardly ever so much.
			few := false
			for n := 0; n < 20 && !few; n++ {
				calls, _, _ = e.run(t, name, 0, 0)
				few = k > len(calls)/2
			}
			if !few {
				t.Errorf("of %d calls, only %d could be made to fail", len(calls), k-1)
			}
			break
		}
	}
	if k > maxCalls {
		t.Errorf("only the first %d calls have failed", maxCalls)
	}
	t.Logf("the last call to fail was %d of %d", k-1, len(calls))
	e.failures += failures
	t.Logf("%d failures in %v", failures, time.Since(begin).Round(time.Millisecond))
}

// run runs a scenario with one failure, or none.
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
		line, ok := e.child.Line(patience)
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
			problems = append(problems, fmt.Sprintf("the child hangs or is dead; it said %q", line))
			e.child.Signal(syscall.SIGQUIT) // to see where
			e.child.Line(time.Second)
			calls, failed = e.s.result()
			e.stop()
			return calls, failed, problems
		}
		break
	}
	calls, failed = e.s.result()
	problems = append(problems, e.s.outside()...)
	e.s.flush()
	e.other.close()
	// A call to a file system that is not known to be local may still be on its way: who made it did not wait.
	var left []string
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if left = append(heldIn(dir), e.leftOpen(before, dir)...); len(left) == 0 || time.Since(begin) > settles {
			break
		}
	}
	return calls, failed, append(problems, left...)
}

// leftOpen looks for descriptors of the child that it did not have before.
func (e *explorer) leftOpen(before map[int32]string, dir string) (problems []string) {
	for fd, what := range e.s.descriptors() {
		if what == "/" && (e.ender < 0 || e.ender == fd) { // interlock keeps one, by which it ends waits
			e.ender = fd
			continue
		}
		if _, ok := before[fd]; !ok {
			problems = append(problems, fmt.Sprintf("descriptor %d left open: %s", fd, strings.ReplaceAll(what, dir, ".")))
		}
	}
	return problems
}

// heldIn looks for locks that are held on files in a directory.
func heldIn(dir string) (problems []string) {
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
			problems = append(problems, fmt.Sprintf("of %s, a byte is still locked: %v", d.Name(), err))
		}
		return nil
	})
	return problems
}

// An other is the other process, which does with files what it is told:
//
//	flock path ex|sh        takes the lock
//	byte path offset ex|sh  takes an open file description lock of a byte
//	close path              gives up what it has of the file
//	close-waiting path      does so when the child waits, or is told to do so at last
type other struct {
	files map[string][]int
}

func (o *other) do(s *supervisor, line string) error {
	var f []string
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		return err
	}
	path := f[1]
	switch f[0] {
	case "close":
		s.flush()
		o.closeFile(path)
		return nil
	case "close-waiting":
		fds := o.files[path]
		delete(o.files, path)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.whenWaiting(func() { closeAll(fds) })
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if o.files == nil {
		o.files = make(map[string][]int)
	}
	o.files[path] = append(o.files[path], fd)
	shared := f[len(f)-1] == "sh"
	if f[0] == "flock" {
		how := unix.LOCK_EX
		if shared {
			how = unix.LOCK_SH
		}
		return unix.Flock(fd, how|unix.LOCK_NB)
	}
	offset, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return err
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: offset, Len: 1}
	if shared {
		l.Type = unix.F_RDLCK
	}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
}

func (o *other) closeFile(path string) {
	closeAll(o.files[path])
	delete(o.files, path)
}

func (o *other) close() {
	for path := range o.files {
		o.closeFile(path)
	}
}

// closeAll closes descriptors, and gives up their locks even if a child between fork and exec has copies.
func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Flock(fd, unix.LOCK_UN)
		unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
		unix.Close(fd)
	}
}
