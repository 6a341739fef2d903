//go:build linux

package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/portalocker"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// A workload is a set of processes that use one lock, and the attacks on them.
type workload struct {
	capacity int64
	clients  int      // of each process
	queuing  []string // the implementations, one for each process that queues
	barging  []string // the same, for processes that do not queue
	attacks  []string // see the methods of nemesis
}

// A nemesis attacks the processes of a workload. It has a journal of its own,
// as process 0.
type nemesis struct {
	*testing.T
	workload
	dir     string
	path    string
	journal *journal
	next    int             // the number of the next process
	alive   []*worker       // the processes that run
	all     map[int]*worker // all processes, by number
	did     map[string]int  // the number of attacks of each kind
}

// A worker is a process that uses the lock.
type worker struct {
	*proc.Process
	number int
	name   string // of its implementation
}

// timeout is long enough for every process that works.
const timeout = 60 * time.Second

// run runs a workload for some time and returns its history.
func run(t *testing.T, b workload, d time.Duration) (attempts []*attempt, n *nemesis) {
	t.Helper()
	if slices.ContainsFunc(b.barging, func(name string) bool { return name != "flock(1)" }) {
		portalocker.Need(t)
	}
	dir := t.TempDir()
	n = &nemesis{
		T:        t,
		workload: b,
		dir:      dir,
		path:     filepath.Join(dir, "lock"),
		journal:  openJournal(dir, 0),
		next:     1,
		all:      make(map[int]*worker),
		did:      make(map[string]int),
	}
	defer n.journal.file.Close()
	for _, name := range slices.Concat(b.queuing, b.barging) {
		n.start(name)
	}
	for begin := time.Now(); time.Since(begin) < d; time.Sleep(rand.N(20 * time.Millisecond)) {
		if len(b.attacks) > 0 {
			what := b.attacks[rand.IntN(len(b.attacks))]
			n.did[what]++
			map[string]func(){
				"kill":                n.kill,
				"stop":                n.stop,
				"replace files":       n.replace,
				"replace gate files":  n.replaceGates,
				"exhaust descriptors": n.exhaust,
			}[what]()
		}
	}
	// Without attacks, every client that waits must get its turn.
	for _, w := range n.alive {
		w.Say("stop")
	}
	for _, w := range n.alive {
		if line, ok := w.Line(timeout); !ok || line != "stopped" {
			n.Errorf("process %d (%s) does not stop: %q", w.number, w.name, line)
			w.Signal(syscall.SIGQUIT) // prints the stacks of its goroutines
		} else if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.Pid())); err != nil || len(open) > 100 {
			n.Errorf("process %d (%s) has %d descriptors at the end: %v", w.number, w.name, len(open), err)
		}
		if err := w.Close(); err != nil {
			n.Error(err)
		}
	}
	events, err := readJournals(dir)
	if err == nil {
		attempts, err = attemptsOf(events)
	}
	if err != nil {
		t.Fatal(err)
	}
	return attempts, n
}

// start starts a process with the named implementation.
func (n *nemesis) start(name string) {
	args := []string{n.dir, strconv.Itoa(n.next), name, fmt.Sprint(n.capacity), strconv.Itoa(n.clients)}
	w := &worker{proc.Start("contend", args...), n.next, name}
	n.Cleanup(w.Kill)
	w.Expect("ready")
	n.next++
	n.alive = append(n.alive, w)
	n.all[w.number] = w
}

// victim returns a process to attack. It never returns one that runs Python:
// the Python process would survive and keep its lock.
func (n *nemesis) victim() *worker {
	for {
		if w := n.alive[rand.IntN(len(n.alive))]; !strings.HasPrefix(w.name, "portalocker") {
			return w
		}
	}
}

// kill kills a process and starts another one in its place.
func (n *nemesis) kill() {
	w := n.victim()
	n.journal.about(w.number, "kill")
	w.Kill()
	n.journal.about(w.number, "dead")
	exit := (*exec.ExitError)(nil)
	if !errors.As(w.Wait(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		n.Errorf("process %d (%s) had already exited: %v", w.number, w.name, exit)
	}
	n.alive = slices.DeleteFunc(n.alive, func(other *worker) bool { return other == w })
	n.start(w.name)
}

// stop stops a process for a while. The process may hold the lock or be first
// in line.
func (n *nemesis) stop() {
	w := n.victim()
	w.Signal(syscall.SIGSTOP)
	time.Sleep(rand.N(20 * time.Millisecond))
	w.Signal(syscall.SIGCONT)
}

// exhaust prevents a process for a while from opening more than a few files, or
// any.
func (n *nemesis) exhaust() {
	w := n.victim()
	pid := w.Pid()
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		n.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(rand.IntN(20)), Max: was.Max} // new descriptors must be below this number
	n.journal.about(w.number, "few")
	defer n.journal.about(w.number, "many")
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		n.Fatal(err)
	}
	if slices.Contains(n.attacks, "replace files") && rand.IntN(2) == 0 {
		n.replace()
	}
	time.Sleep(rand.N(20 * time.Millisecond))
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); err != nil {
		n.Fatal(err)
	}
}

// replace replaces the lock files while the nemesis holds the lock. This is the
// safe way to replace them: other processes still exclude each other. In the
// history, the nemesis releases the lock before it touches the files.
func (n *nemesis) replace() {
	open, files := openRWMutex, []string{n.path}
	if n.semaphore() {
		open = openSemaphore
		files, _ = filepath.Glob(n.path + ".[0-9]*.lock")
	}
	l, err := open(n.path, n.capacity)
	if err != nil {
		n.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := client{journal: n.journal, value: n.value(), capacity: n.capacity}
	defer c.value.Close()
	n.journal.call(0, waitUntilDone, n.capacity, 0)
	switch err := l.acquire(ctx, n.capacity); {
	case err != nil && err == ctx.Err():
		n.journal.end(0, ended)
	case err != nil:
		n.journal.end(0, err.Error())
	default:
		n.journal.acquired(0)
		n.journal.release(0, c.read())
		for _, file := range files {
			replaceFile(file)
		}
		l.release(n.capacity)
		n.journal.end(0, done)
	}
	if err := l.(interface{ Close() error }).Close(); err != nil {
		n.Error(err)
	}
}

// queues reports whether a process is one of those that queue. The nemesis
// itself is not.
func (n *nemesis) queues(process int) bool {
	w := n.all[process]
	return w != nil && slices.Contains(n.queuing, w.name)
}

// semaphore reports whether the lock is a semaphore.
func (n *nemesis) semaphore() bool { return n.queuing[0] != "FileRWMutex" && n.capacity < rwCapacity }

// value opens the file that the lock guards.
func (n *nemesis) value() *os.File {
	f, err := os.OpenFile(filepath.Join(n.dir, "value"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	return f
}

// replaceFile removes a file, renames it, or puts another one in its place.
func replaceFile(path string) {
	switch rand.IntN(3) {
	case 0:
		os.Remove(path)
	case 1:
		os.Rename(path, path+".old")
	case 2:
		os.WriteFile(path+".new", nil, 0o600)
		os.Rename(path+".new", path)
	}
}

// replaceGates replaces the gate files, even while they are in use. The files
// only affect the order of waiters.
func (n *nemesis) replaceGates() {
	for _, suffix := range []string{".gate", ".gate.lock", ".queue.lock"} {
		if _, err := os.Lstat(n.path + suffix); err == nil && rand.IntN(2) == 0 {
			replaceFile(n.path + suffix)
		}
	}
}
