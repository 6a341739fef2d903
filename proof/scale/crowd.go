//go:build linux

package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// A crowd is who contends, for some locks or for the units of one semaphore.
type crowd struct {
	what                  string
	processes, goroutines int // goroutines of each process
	locks                 int
	units                 int64
	bare                  bool // by flock(2) alone, to compare
}

func (c crowd) members() int { return c.processes * c.goroutines }

// A row is what was seen of a crowd.
type row struct {
	crowd
	perTurn        time.Duration // while all contend
	least, most    int           // turns of one member
	threads        float64       // of a process, while all wait
	descriptors    float64       // likewise
	memory         float64       // kB that a waiter takes, in private memory
	idle           float64       // CPU time per time, of all that wait
	wakeups        float64       // of all that wait, per second
	perTurnWaiting time.Duration // until all who waited have had a turn
}

// A lock is what a member contends for.
type lock interface {
	lock()
	unlock()
}

type mutex struct{ *interlock.FileRWMutex }

func (m mutex) lock()   { m.Lock() }
func (m mutex) unlock() { m.Unlock() }

type unit struct{ s *interlock.FileSemaphore }

func (u unit) lock() {
	if err := u.s.Acquire(context.Background(), 1); err != nil {
		panic(err)
	}
}
func (u unit) unlock() { u.s.Release(1) }

// A bareFile is locked by flock(2) and nothing else.
type bareFile struct{ *os.File }

func (f bareFile) lock()   { f.flock(unix.LOCK_EX) }
func (f bareFile) unlock() { f.flock(unix.LOCK_UN) }

func (f bareFile) flock(how int) {
	for {
		if err := unix.Flock(int(f.Fd()), how); err == nil {
			return
		} else if err != unix.EINTR {
			panic(err)
		}
	}
}

func (c crowd) open(dir string) []lock {
	if c.bare {
		return []lock{bareFile{interlock.Must(os.OpenFile(filepath.Join(dir, "bare"), os.O_RDWR|os.O_CREATE, 0o600))}}
	}
	if c.units > 0 {
		return []lock{unit{interlock.Must(interlock.NewFileSemaphore(filepath.Join(dir, "sem"), c.units))}}
	}
	locks := make([]lock, c.locks)
	for i := range locks {
		locks[i] = mutex{interlock.Must(interlock.NewFileRWMutex(filepath.Join(dir, fmt.Sprint("lock.", i))))}
	}
	return locks
}

// A member has turns with one lock.
type member struct {
	lock    lock
	counter int64 // where it is, that the lock guards; or negative
	turns   atomic.Int64
	before  int64 // turns before they were counted
}

// turn adds one to the counter, so that it is seen if two have the lock at once.
func (m *member) turn(counters *os.File) {
	m.lock.lock()
	defer m.lock.unlock()
	m.turns.Add(1)
	if m.counter < 0 {
		return
	}
	var n [8]byte
	counters.ReadAt(n[:], m.counter)
	binary.LittleEndian.PutUint64(n[:], binary.LittleEndian.Uint64(n[:])+1)
	if _, err := counters.WriteAt(n[:], m.counter); err != nil {
		panic(err)
	}
}

// contend is a process of a crowd. It opens its locks and, when told to "race", has turns until it is told to
// "stop", and counts them from when it is told to "count"; or, when told to "wait", it has one turn for each member.
// Then it prints how many the members have had.
func contend(args []string) {
	dir := args[0]
	var c crowd
	for i, to := range []*int{&c.goroutines, &c.locks} {
		*to, _ = strconv.Atoi(args[1+i])
	}
	c.units, _ = strconv.ParseInt(args[3], 10, 64)
	c.bare = args[4] == "true"
	locks := c.open(dir)
	counters := interlock.Must(os.OpenFile(filepath.Join(dir, "counters"), os.O_RDWR|os.O_CREATE, 0o600))
	members := make([]member, c.goroutines)
	for i := range members {
		members[i].lock, members[i].counter = locks[i%len(locks)], int64(i%len(locks))*8
		if c.units > 0 {
			members[i].counter = -1
		}
	}
	var racing atomic.Bool
	var all sync.WaitGroup
	fmt.Println("ready")
	for {
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return
		}
		switch line {
		case "race":
			racing.Store(true)
			for i := range members {
				all.Go(func() {
					for racing.Load() {
						members[i].turn(counters)
						runtime.Gosched() // or the first few have all the turns, 10 ms each, until the others have begun
					}
				})
			}
			continue
		case "count":
			for i := range members {
				members[i].before = members[i].turns.Load()
			}
			continue
		case "stop":
			racing.Store(false)
		case "wait":
			for i := range members {
				all.Go(func() { members[i].turn(counters) })
			}
			fmt.Println("waiting")
		}
		all.Wait()
		var least, most, sum, total int64
		for i := range members {
			m := &members[i]
			n := m.turns.Load() - m.before
			if i == 0 || n < least {
				least = n
			}
			most, sum, total = max(most, n), sum+n, total+m.turns.Load()
		}
		fmt.Println("turns", least, most, sum, total)
	}
}

// measure lets a crowd contend for the time of race, and wait while it looks on for that of window.
func measure(c crowd, dir string, race, window time.Duration) (r row, err error) {
	r = row{crowd: c}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return r, err
	}
	ps := make([]*proc.Process, c.processes)
	for i := range ps {
		ps[i] = proc.Start("contend", dir, fmt.Sprint(c.goroutines), fmt.Sprint(c.locks), fmt.Sprint(c.units), fmt.Sprint(c.bare))
		defer ps[i].Kill()
	}
	for _, p := range ps {
		p.Expect("ready")
	}
	alone := sum(ps, privateKB)
	tell(ps, "race")
	time.Sleep(race / 2) // until all have begun
	begin := time.Now()
	tell(ps, "count")
	time.Sleep(race)
	took := time.Since(begin)
	tell(ps, "stop")
	counted, err := c.turns(dir, ps)
	if err != nil {
		return r, err
	}
	r.least, r.most = counted.least, counted.most
	r.perTurn = took / time.Duration(max(counted.sum, 1))

	// Now all wait for what we have.
	ours := c.open(dir)
	var have []lock
	for _, l := range ours {
		for range max(1, c.units) {
			l.lock()
			have = append(have, l)
		}
	}
	for _, p := range ps {
		p.Say("wait")
		p.Expect("waiting")
	}
	settle(ps)
	cpu, switches := sum(ps, cpuTime), sum(ps, voluntarySwitches)
	time.Sleep(window)
	r.idle = (sum(ps, cpuTime) - cpu) / float64(window)
	r.wakeups = (sum(ps, voluntarySwitches) - switches) / window.Seconds()
	n := float64(c.processes)
	r.threads, r.descriptors = sum(ps, threads)/n, sum(ps, descriptors)/n
	r.memory = (sum(ps, privateKB) - alone) / float64(c.members())
	if c.goroutines == 1 { // a process is there for its one waiter
		r.memory = sum(ps, privateKB) / n
	}
	begin = time.Now()
	for _, l := range have {
		l.unlock()
	}
	if _, err := c.turns(dir, ps); err != nil {
		return r, err
	}
	r.perTurnWaiting = time.Since(begin) / time.Duration(c.members())
	for _, p := range ps {
		if err := p.Close(); err != nil {
			return r, err
		}
	}
	return r, nil
}

func tell(ps []*proc.Process, line string) {
	for _, p := range ps {
		p.Say(line)
	}
}

// A count is one of turns: those that a member had at least and at most, and those of all.
type count struct{ least, most, sum int }

// turns waits until all have had their turns, and counts them.
func (c crowd) turns(dir string, ps []*proc.Process) (all count, err error) {
	total := 0
	for i, p := range ps {
		line, _ := p.Line(5 * time.Minute)
		var one count
		var ever int
		if _, err := fmt.Sscanf(line, "turns %d %d %d %d", &one.least, &one.most, &one.sum, &ever); err != nil {
			return all, fmt.Errorf("process %d: %q", i, line)
		}
		if i == 0 || one.least < all.least {
			all.least = one.least
		}
		all.most, all.sum, total = max(all.most, one.most), all.sum+one.sum, total+ever
	}
	if all.least == 0 && !c.bare {
		return all, fmt.Errorf("one had no turn, another %d", all.most)
	}
	if c.units > 0 {
		return all, nil
	}
	data, err := os.ReadFile(filepath.Join(dir, "counters"))
	seen := 0
	for ; len(data) >= 8; data = data[8:] {
		seen += int(binary.LittleEndian.Uint64(data))
	}
	if err == nil && seen != total {
		err = fmt.Errorf("%d turns were counted under the locks, of %d", seen, total)
	}
	return all, err
}

// settle waits until nothing more happens in the processes.
func settle(ps []*proc.Process) {
	for range 100 {
		before := sum(ps, cpuTime)
		time.Sleep(time.Second)
		if sum(ps, cpuTime)-before < float64(20*time.Millisecond) {
			return
		}
	}
}

func sum(ps []*proc.Process, of func(pid int) float64) (total float64) {
	for _, p := range ps {
		total += of(p.Pid())
	}
	return total
}

// entries are the names in a directory of the process in /proc.
func entries(pid int, dir string) []os.DirEntry {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, dir))
	if err != nil {
		panic(err)
	}
	return list
}

func threads(pid int) float64     { return float64(len(entries(pid, "task"))) }
func descriptors(pid int) float64 { return float64(len(entries(pid, "fd"))) }

// ofThreads sums up a field of a file that each thread of the process has.
func ofThreads(pid int, file string, field func(data string) string) (total float64) {
	for _, task := range entries(pid, "task") {
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/%s", pid, task.Name(), file)) // or it has ended
		n, _ := strconv.ParseFloat(field(string(data)), 64)
		total += n
	}
	return total
}

// cpuTime is how long the process has run, in ns.
func cpuTime(pid int) float64 {
	return ofThreads(pid, "schedstat", func(data string) string {
		ns, _, _ := strings.Cut(data, " ")
		return ns
	})
}

func voluntarySwitches(pid int) float64 {
	return ofThreads(pid, "status", func(data string) string { return valueOf(data, "voluntary_ctxt_switches:") })
}

// privateKB is the memory that the process shares with no other.
func privateKB(pid int) (total float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		panic(err)
	}
	for _, key := range []string{"Private_Clean:", "Private_Dirty:"} {
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(valueOf(string(data), key), " kB"), 64)
		total += kb
	}
	return total
}

// valueOf is what follows a key at the beginning of a line.
func valueOf(data, key string) string {
	for line := range strings.Lines(data) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// byWhat groups rows of the same kind of crowd.
func byWhat(rows []row) (groups [][]row) {
	for len(rows) > 0 {
		n := slices.IndexFunc(rows, func(r row) bool { return r.what != rows[0].what })
		if n < 0 {
			n = len(rows)
		}
		group := slices.Clone(rows[:n])
		slices.SortFunc(group, func(a, b row) int { return cmp.Compare(a.members(), b.members()) })
		groups, rows = append(groups, group), rows[n:]
	}
	return groups
}
