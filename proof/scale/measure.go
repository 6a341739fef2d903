//go:build linux

package main

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
)

// A row is the result of one workload.
type row struct {
	workload
	perTurn        time.Duration // during the race
	least, most    int           // turns of one member during the race
	threads        float64       // of a process, while all members wait
	descriptors    float64       // likewise
	memory         float64       // private memory of a waiter, in kB
	idle           float64       // CPU time of all processes per time, while all members wait
	wakeups        float64       // of all processes per second, while all members wait
	perTurnWaiting time.Duration // from the release until all members had a turn
}

// measure lets a workload contend for the time race. Then it lets all members
// wait and observes them for the time window.
func measure(c workload, dir string, race, window time.Duration) (r row, err error) {
	r = row{workload: c}
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
	time.Sleep(race / 2) // all members have started by then
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

	// This process holds all locks, and all members wait.
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
	if c.goroutines == 1 { // the process exists only for its one waiter
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

// tell sends a command to all processes.
func tell(ps []*proc.Process, line string) {
	for _, p := range ps {
		p.Say(line)
	}
}

// A count is a number of turns: the least and the most of one member, and the
// sum of all members.
type count struct{ least, most, sum int }

// turns waits until all processes have printed their turns. It returns the
// counts and checks them against the counters in the files.
func (c workload) turns(dir string, ps []*proc.Process) (all count, err error) {
	total := 0
	for i, p := range ps {
		line, _ := p.Line(5 * time.Minute)
		var one count
		var ever int
		if _, err := fmt.Sscanf(line, "turns %d %d %d %d", &one.least, &one.most, &one.sum, &ever); err != nil {
			return all, fmt.Errorf("process %d printed %q, want its turns", i, line)
		}
		if i == 0 || one.least < all.least {
			all.least = one.least
		}
		all.most, all.sum, total = max(all.most, one.most), all.sum+one.sum, total+ever
	}
	if all.least == 0 && !c.bare {
		return all, fmt.Errorf("a member had no turn, and another had %d", all.most)
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
		err = fmt.Errorf("the counters say %d turns, want %d: two members held a lock at once", seen, total)
	}
	return all, err
}

// settle waits until the processes are idle.
func settle(ps []*proc.Process) {
	for range 100 {
		before := sum(ps, cpuTime)
		time.Sleep(time.Second)
		if sum(ps, cpuTime)-before < float64(20*time.Millisecond) {
			return
		}
	}
}

// byKind groups rows of the same kind, sorted by their number of members.
func byKind(rows []row) (groups [][]row) {
	for len(rows) > 0 {
		n := slices.IndexFunc(rows, func(r row) bool { return r.kind != rows[0].kind })
		if n < 0 {
			n = len(rows)
		}
		group := slices.Clone(rows[:n])
		slices.SortFunc(group, func(a, b row) int { return cmp.Compare(a.members(), b.members()) })
		groups, rows = append(groups, group), rows[n:]
	}
	return groups
}
