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

// A battle is some processes that contend for one lock, and a nemesis.
type battle struct {
	capacity int64
	clients  int      // of each process
	fair     []string // the contenders of the processes
	foreign  []string // and of others, who do not queue
	nemesis  []string // what it does, see its methods
}

// A nemesis does to a battle what can happen to it. It has a journal of its own, as process 0.
type nemesis struct {
	*testing.T
	battle
	dir     string
	path    string
	journal *journal
	next    int // the number of the next process
	alive   []*fighter
	all     map[int]*fighter // by number
	did     map[string]int
}

type fighter struct {
	*proc.Process
	number int
	name   string
}

// fight lets a battle go on for some time, and returns what its journals tell.
func fight(t *testing.T, b battle, d time.Duration) (stays []*stay, n *nemesis) {
	t.Helper()
	if slices.ContainsFunc(b.foreign, func(name string) bool { return name != "flock(1)" }) {
		portalocker.Need(t)
	}
	dir := t.TempDir()
	n = &nemesis{T: t, battle: b, dir: dir, path: filepath.Join(dir, "lock"), journal: openJournal(dir, 0), next: 1,
		all: make(map[int]*fighter), did: make(map[string]int)}
	defer n.journal.file.Close()
	for _, name := range slices.Concat(b.fair, b.foreign) {
		n.start(name)
	}
	for begin := time.Now(); time.Since(begin) < d; time.Sleep(rand.N(20 * time.Millisecond)) {
		if len(b.nemesis) > 0 {
			what := b.nemesis[rand.IntN(len(b.nemesis))]
			n.did[what]++
			map[string]func(){
				"kill":                n.kill,
				"stop":                n.stop,
				"replace":             n.replace,
				"replace gates":       n.replaceGates,
				"exhaust descriptors": n.exhaust,
			}[what]()
		}
	}
	// Whoever waits now gets its turn.
	for _, f := range n.alive {
		f.Say("stop")
	}
	for _, f := range n.alive {
		if line, ok := f.Line(patience); !ok || line != "stopped" {
			n.Errorf("process %d, by %s, does not come to an end: %q", f.number, f.name, line)
			f.Signal(syscall.SIGQUIT) // and tells where it waits
		} else if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.Pid())); err != nil || len(open) > 100 {
			n.Errorf("process %d, by %s, has %d descriptors in the end: %v", f.number, f.name, len(open), err)
		}
		if err := f.Close(); err != nil {
			n.Error(err)
		}
	}
	events, err := readJournals(dir)
	if err == nil {
		stays, err = staysOf(events)
	}
	if err != nil {
		t.Fatal(err)
	}
	return stays, n
}

// patience is for what will happen unless something is broken.
const patience = 60 * time.Second

func (n *nemesis) start(name string) {
	f := &fighter{proc.Start("contend", n.dir, strconv.Itoa(n.next), name, fmt.Sprint(n.capacity), strconv.Itoa(n.clients)), n.next, name}
	n.Cleanup(f.Kill)
	f.Expect("ready")
	n.next++
	n.alive = append(n.alive, f)
	n.all[f.number] = f
}

// victim is a process that may be harmed. One that locks by Python is not: it would leave that behind.
func (n *nemesis) victim() *fighter {
	for {
		if f := n.alive[rand.IntN(len(n.alive))]; !strings.HasPrefix(f.name, "portalocker") {
			return f
		}
	}
}

// kill kills a process, and starts another in its place.
func (n *nemesis) kill() {
	f := n.victim()
	n.journal.about(f.number, "kill")
	f.Kill()
	n.journal.about(f.number, "dead")
	if exit := (*exec.ExitError)(nil); !errors.As(f.Wait(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		n.Errorf("process %d, by %s, had ended before: %v", f.number, f.name, exit)
	}
	n.alive = slices.DeleteFunc(n.alive, func(other *fighter) bool { return other == f })
	n.start(f.name)
}

// stop stops a process for a while, perhaps while it has the lock, or is the first in line.
func (n *nemesis) stop() {
	f := n.victim()
	f.Signal(syscall.SIGSTOP)
	time.Sleep(rand.N(20 * time.Millisecond))
	f.Signal(syscall.SIGCONT)
}

// exhaust leaves a process few descriptors or none beside those that it has, for a while in which it may need some.
func (n *nemesis) exhaust() {
	f := n.victim()
	pid := f.Pid()
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		n.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(rand.IntN(20)), Max: was.Max} // the numbers from which on are not to be had
	n.journal.about(f.number, "few")
	defer n.journal.about(f.number, "many")
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		n.Fatal(err)
	}
	if slices.Contains(n.nemesis, "replace") && rand.IntN(2) == 0 {
		n.replace()
	}
	time.Sleep(rand.N(20 * time.Millisecond))
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); err != nil {
		n.Fatal(err)
	}
}

// replace replaces the files that are locked, while nobody else has them locked. That is how those should who must: then
// exclusion holds all the same. The nemesis does not count as a holder from the moment that it touches them.
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
	n.journal.call(0, waitsSome, n.capacity, 0)
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

func (n *nemesis) semaphore() bool { return n.fair[0] != "FileRWMutex" && n.capacity < mutex }

func (n *nemesis) value() *os.File {
	f, err := os.OpenFile(filepath.Join(n.dir, "value"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		n.Fatal(err)
	}
	return f
}

// replaceFile removes a file, renames it, or puts another in its place.
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

// replaceGates replaces files on which only the order of those who wait depends, whoever uses them.
func (n *nemesis) replaceGates() {
	for _, suffix := range []string{".gate", ".gate.lock", ".queue.lock"} {
		if _, err := os.Lstat(n.path + suffix); err == nil && rand.IntN(2) == 0 {
			replaceFile(n.path + suffix)
		}
	}
}

// mutex is the capacity of a lock for reading and writing.
const mutex = 1000
