//go:build linux

package proof

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"
)

// A history is what happened to one lock. It is told by the logs of all processes, a line an event:
//
//	call     TIME PROCESS CLIENT HOW WEIGHT VALUE  is about to lock, and then to write this value, or 0
//	acquired TIME PROCESS CLIENT                   has the lock
//	release  TIME PROCESS CLIENT VALUE             is about to unlock, having read this value (a writer: before it wrote)
//	end      TIME PROCESS CLIENT OUTCOME           has unlocked, or does not have the lock
//	kill     TIME PROCESS                          is about to be killed
//	dead     TIME PROCESS                          and is gone
//	few      TIME PROCESS                          is about to have few descriptors
//	many     TIME PROCESS                          and has as many as before
//
// A client is a goroutine that does one thing after the other. The lock is one of a capacity, of which a
// client takes its weight: a semaphore's size, or for others as much as a writer takes, of which
// a reader takes 1.
type event struct {
	what            string
	time            int64
	process, client int
	how             string
	weight          int64
	value           uint64
	outcome         string
}

// How a client may ask for the lock.
const (
	waits     = "waits"     // for as long as it takes
	waitsSome = "waitsSome" // until its context ends
	tries     = "tries"
	opens     = "opens" // or opens it first
)

// What may come of it.
const (
	done   = "done"   // it had the lock
	locked = "locked" // its try failed
	ended  = "ended"  // its context did
	// anything else is an error of the lock
)

// clock is CLOCK_MONOTONIC, which is one for all processes, in ns.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// A journal is the log of one process. An event is written at once, so that it is there even if the process
// is killed right after.
type journal struct {
	mu      sync.Mutex
	file    *os.File
	process int
}

func openJournal(dir string, process int) *journal {
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("journal.%d", process)), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		panic(err)
	}
	return &journal{file: f, process: process}
}

func (j *journal) write(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.WriteString(line); err != nil {
		panic(err)
	}
}

func (j *journal) call(client int, how string, weight int64, value uint64) {
	j.write(fmt.Sprintln("call", clock(), j.process, client, how, weight, value))
}

// acquired and what follows take the time before it is written: what is guarded must not be held meanwhile.
func (j *journal) acquired(client int) {
	j.write(fmt.Sprintln("acquired", clock(), j.process, client))
}

func (j *journal) release(client int, value uint64) {
	j.write(fmt.Sprintln("release", clock(), j.process, client, value))
}

func (j *journal) end(client int, outcome string) {
	now := clock()
	j.write(fmt.Sprintln("end", now, j.process, client, strings.ReplaceAll(outcome, "\n", " ")))
}

// about writes what is done to another process.
func (j *journal) about(process int, what string) { j.write(fmt.Sprintln(what, clock(), process)) }

func parse(line string) (e event, err error) {
	in := bufio.NewReader(strings.NewReader(line))
	if _, err = fmt.Fscan(in, &e.what, &e.time, &e.process); err != nil {
		return e, err
	}
	switch e.what {
	case "call":
		_, err = fmt.Fscan(in, &e.client, &e.how, &e.weight, &e.value)
	case "acquired":
		_, err = fmt.Fscan(in, &e.client)
	case "release":
		_, err = fmt.Fscan(in, &e.client, &e.value)
	case "end":
		_, err = fmt.Fscan(in, &e.client)
		rest, _ := io.ReadAll(in)
		e.outcome = strings.TrimSpace(string(rest))
	case "kill", "dead", "few", "many":
	default:
		err = errors.New("no event")
	}
	return e, err
}

// readJournals returns the events of all journals in dir, in the order of time.
func readJournals(dir string) ([]event, error) {
	names, err := filepath.Glob(filepath.Join(dir, "journal.*"))
	if err != nil {
		return nil, err
	}
	var events []event
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(data) {
			if line[len(line)-1] != '\n' {
				continue // its writer was killed
			}
			e, err := parse(string(line))
			if err != nil {
				return nil, fmt.Errorf("%s: %q: %w", name, line, err)
			}
			events = append(events, e)
		}
	}
	// Stable: a process writes its events in their order, also if the clock does not tell them apart.
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.time, b.time) })
	return events, nil
}

// A stay is what a client did from a call to its end. Times that did not come are 0.
type stay struct {
	process, client int
	how             string
	weight          int64
	value           uint64 // that it was to write, or 0
	saw             uint64 // that it read
	called          int64
	acquired        int64
	release         int64 // its unlock was called, or its process killed
	ended           int64 // at the latest: its process was gone
	knows           bool  // saw is known: it came as far as release
	killed          bool
	few             bool // it had few descriptors meanwhile
	outcome         string
}

func (s *stay) writes() bool { return s.value != 0 }

// staysOf tells what each client did.
func staysOf(events []event) ([]*stay, error) {
	type key struct{ process, client int }
	open := make(map[key]*stay)
	few := make(map[int]bool)
	killed := make(map[int]int64) // when a process was about to be
	var all []*stay
	for _, e := range events {
		k := key{e.process, e.client}
		s := open[k]
		if s == nil && (e.what == "acquired" || e.what == "release" || e.what == "end") {
			return nil, fmt.Errorf("%+v without a call", e)
		}
		switch e.what {
		case "call":
			s = &stay{process: e.process, client: e.client, how: e.how, weight: e.weight, value: e.value, called: e.time, few: few[e.process]}
			open[k] = s
			all = append(all, s)
		case "acquired":
			s.acquired = e.time
		case "release":
			s.release, s.saw, s.knows = e.time, e.value, true
		case "end":
			s.ended, s.outcome = e.time, e.outcome
			delete(open, k)
		case "few", "many":
			few[e.process] = e.what == "few"
			for k, s := range open {
				if k.process == e.process {
					s.few = true
				}
			}
		case "kill", "dead": // it goes on for a moment after the former, and may be gone for a moment before the latter
			if e.what == "kill" {
				killed[e.process] = e.time
			}
			for k, s := range open {
				if k.process != e.process {
					continue
				}
				s.killed = true
				if s.release == 0 {
					s.release = killed[e.process]
				}
				if e.what == "dead" {
					s.ended = e.time
					delete(open, k)
				}
			}
		}
	}
	for _, s := range open {
		return nil, fmt.Errorf("%+v has no end", *s)
	}
	return all, nil
}

// Operations, of which each takes effect at one instant.
type (
	take struct{ weight int64 }
	give struct {
		weight int64
		reads  bool // saw is known
		saw    uint64
		writes uint64 // or 0
	}
)

// A state is that of a correct lock, and of the value that it guards.
type state struct {
	used  int64
	value uint64
}

// model is a lock of the given capacity.
func model(capacity int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(was, input, _ any) (bool, any) {
			s := was.(state)
			switch op := input.(type) {
			case take:
				s.used += op.weight
				return s.used <= capacity, s
			case give:
				if op.reads && op.saw != s.value {
					return false, s
				}
				if op.writes != 0 {
					s.value = op.writes
				}
				s.used -= op.weight
				return s.used >= 0, s
			}
			panic("no operation")
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%T%+v", input, input) },
		DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
	}
}

// afterDeath is how long after a process is gone its locks can be seen held.
const afterDeath = 100 * int64(time.Millisecond)

// operationsOf turns stays to what porcupine searches. A stay without the lock has no effect.
//
// Whether a client that was killed while it had the lock had written its value is not known, unless it came as far as
// release: but if it had, then whoever came next has read that.
func operationsOf(all []*stay) []porcupine.Operation {
	seen := make(map[uint64]bool)
	for _, s := range all {
		if s.knows {
			seen[s.saw] = true
		}
	}
	var ops []porcupine.Operation
	ids := make(map[[2]int]int)
	for _, s := range all {
		if s.acquired == 0 {
			continue
		}
		id, ok := ids[[2]int{s.process, s.client}]
		if !ok {
			id = len(ids)
			ids[[2]int{s.process, s.client}] = id
		}
		g := give{weight: s.weight, reads: s.knows, saw: s.saw}
		if s.writes() && (s.knows || seen[s.value]) {
			g.writes = s.value
		}
		end := s.ended
		if s.killed {
			end += afterDeath
		}
		// Who was about to be killed may have got it after that. Porcupine takes equal times as at once.
		release := max(s.release, s.acquired+1)
		ops = append(ops,
			porcupine.Operation{ClientId: id, Input: take{s.weight}, Call: s.called, Return: s.acquired},
			porcupine.Operation{ClientId: id, Input: g, Call: release, Return: max(end, release)})
	}
	return ops
}

// errNoOrder: the history is not one of a correct lock.
var errNoOrder = errors.New("no order explains the history")

// check returns what is wrong with a history, or nil. It draws one that no order explains to a picture, unless
// that is no path.
func check(all []*stay, capacity int64, picture string) error {
	if err := failures(all, capacity); err != nil {
		return err
	}
	ops := operationsOf(all)
	switch porcupine.CheckOperationsTimeout(model(capacity), ops, 2*time.Minute) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("not known: the search for an order of %d operations took too long", len(ops))
	}
	if picture != "" {
		_, info := porcupine.CheckOperationsVerbose(model(capacity), ops, time.Minute)
		if err := porcupine.VisualizePath(model(capacity), info, picture); err != nil {
			return errors.Join(errNoOrder, err)
		}
	}
	return fmt.Errorf("%w of %d operations %s", errNoOrder, len(ops), picture)
}

// failures returns an error if a call failed that should not have: who waits for as long as it takes, a try though
// nobody was in its way, or anything but for lack of descriptors.
func failures(all []*stay, capacity int64) error {
	for _, s := range all {
		switch {
		case s.outcome == "" || s.outcome == done:
		case s.outcome == ended && s.how == waitsSome:
		case s.outcome == locked && s.how == tries:
			if !hindered(s, all, capacity) {
				return fmt.Errorf("%+v: nobody was in its way", *s)
			}
		case s.few && strings.HasSuffix(s.outcome, ": "+unix.EMFILE.Error()):
		default:
			return fmt.Errorf("%+v", *s)
		}
	}
	return nil
}

// hindered reports whether others were in the way of a try: who had too much of the lock, all together, or waited; or,
// of a semaphore, was counting units.
func hindered(try *stay, all []*stay, capacity int64) bool {
	used := int64(0)
	for _, s := range all {
		end := s.ended
		if s.killed {
			end += afterDeath
		}
		if s == try || s.called > try.ended || end < try.called {
			continue
		}
		if s.how != tries || capacity < mutex && s.weight > 1 {
			return true
		}
		if s.acquired != 0 {
			used += s.weight
		}
	}
	return used+try.weight > capacity
}

// overtaken returns how many came after a stay and had the lock before it.
func overtaken(s *stay, all []*stay) (n int) {
	for _, other := range all {
		if other.acquired != 0 && other.called > s.called && other.acquired < s.acquired {
			n++
		}
	}
	return n
}

// A distribution tells how long waits took, in order.
type distribution []time.Duration

func (d distribution) String() string {
	if len(d) == 0 {
		return "no waits"
	}
	at := func(share float64) time.Duration { return d[int(share*float64(len(d)-1))].Round(time.Microsecond) }
	return fmt.Sprintf("%d waits: median %v, 90 %% %v, 99 %% %v, 99.9 %% %v, longest %v", len(d), at(.5), at(.9), at(.99), at(.999), at(1))
}

// The search itself: histories that are right, and the like that are wrong.
func TestCheck(t *testing.T) {
	const size = 3
	// A stay from 10·n to 10·n+9.
	at := func(n int64, weight int64, value, saw uint64) *stay {
		return &stay{process: int(n), how: waits, weight: weight, value: value, saw: saw, knows: true,
			called: 10 * n, acquired: 10*n + 1, release: 10*n + 8, ended: 10*n + 9, outcome: done}
	}
	long := func(s *stay, by int64) *stay { s.release += by; s.ended += by; return s }
	killed := func(s *stay) *stay { s.killed, s.knows, s.outcome = true, false, ""; return s }
	failed := func(s *stay, outcome string) *stay {
		s.how, s.acquired, s.release, s.outcome = tries, 0, 0, outcome
		return s
	}
	hasFew := func(s *stay) *stay { s.few = true; return s }
	for name, c := range map[string]struct {
		history []*stay
		right   bool
	}{
		"one after the other":              {[]*stay{at(1, size, 7, 0), at(2, size, 8, 7), at(3, 1, 0, 8)}, true},
		"a lost update":                    {[]*stay{at(1, size, 7, 0), at(2, size, 8, 0), at(3, 1, 0, 8)}, false},
		"a stale read":                     {[]*stay{at(1, size, 7, 0), at(2, 1, 0, 0)}, false},
		"readers share":                    {[]*stay{long(at(1, 1, 0, 0), 20), at(2, 1, 0, 0)}, true},
		"a writer beside a reader":         {[]*stay{long(at(1, 1, 0, 0), 20), at(2, size, 7, 0)}, false},
		"two writers at once":              {[]*stay{long(at(1, size, 7, 8), 20), at(2, size, 8, 0)}, false},
		"all units in use":                 {[]*stay{long(at(1, 2, 0, 0), 20), at(2, 1, 0, 0)}, true},
		"more units in use than there are": {[]*stay{long(at(1, 2, 0, 0), 20), at(2, 2, 0, 0)}, false},
		"killed before it wrote":           {[]*stay{killed(at(1, size, 7, 0)), at(20, size, 8, 0)}, true},
		"killed after it wrote":            {[]*stay{killed(at(1, size, 7, 0)), at(20, size, 8, 7)}, true},
		"a try that fails for nothing":     {[]*stay{failed(at(1, size, 7, 0), locked), at(afterDeath, size, 8, 0)}, false},
		"a try that fails":                 {[]*stay{long(at(1, 1, 0, 0), 20), failed(at(2, size, 7, 0), locked)}, true},
		"a try beside a reader":            {[]*stay{{how: tries, weight: 1, called: 10, acquired: 11, release: 30, ended: 31, outcome: done, knows: true}, failed(at(2, 1, 0, 0), locked)}, false},
		"a wait that gives up":             {[]*stay{{how: waits, weight: 1, called: 10, ended: 20, outcome: ended}}, false},
		"an error":                         {[]*stay{failed(at(1, size, 7, 0), "no locks available")}, false},
		"no descriptors":                   {[]*stay{hasFew(failed(at(1, size, 7, 0), "open: "+unix.EMFILE.Error()))}, true},
		"descriptors, but none":            {[]*stay{failed(at(1, size, 7, 0), "open: "+unix.EMFILE.Error())}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := check(c.history, size, ""); (err == nil) != c.right {
				t.Error(err)
			}
		})
	}
}

// What a killed process had is over only when it is gone, and what it got after it was to be killed is not forgotten.
func TestCheckOfJournals(t *testing.T) {
	holder := "call 200 1 0 waits 3 7\nacquired 250 1 0\nrelease 380 1 0 0\nend 390 1 0 done\n"
	for name, c := range map[string]struct {
		journals string
		right    bool
	}{
		"a holder alone":                       {holder, true},
		"killed before it has it":              {holder + "call 260 2 0 waits 3 8\nkill 300 2\ndead 400 2\n", true},
		"gets it though another has it":        {holder + "call 260 2 0 waits 3 8\nacquired 270 2 0\nkill 300 2\ndead 400 2\n", false},
		"gets it so after it was to be killed": {holder + "call 260 2 0 waits 3 8\nkill 300 2\nacquired 310 2 0\ndead 350 2\n", false},
		"calls so after it was to be killed":   {holder + "kill 255 2\ncall 260 2 0 waits 3 8\nacquired 270 2 0\ndead 350 2\n", false},
		"is dead when another gets it":         {holder + "kill 190 2\ncall 195 2 0 waits 3 8\nacquired 197 2 0\ndead 260 2\n", true},
		"gets it when the holder is dead":      {"call 10 2 0 waits 3 8\nacquired 20 2 0\nkill 30 2\ndead 40 2\n" + holder, true},
		"gets it though the holder lives on":   {"call 10 2 0 waits 3 8\nacquired 20 2 0\nkill 300 2\ndead 400 2\n" + holder, false},
		"few descriptors":                      {"few 1 2\ncall 10 2 0 waits 3 8\nmany 15 2\nend 20 2 0 open: too many open files\n", true},
		"few descriptors no more":              {"few 1 2\nmany 2 2\ncall 10 2 0 waits 3 8\nend 20 2 0 open: too many open files\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "journal.1"), []byte(c.journals), 0o600); err != nil {
				t.Fatal(err)
			}
			events, err := readJournals(dir)
			if err != nil {
				t.Fatal(err)
			}
			stays, err := staysOf(events)
			if err != nil {
				t.Fatal(err)
			}
			if err := check(stays, 3, ""); (err == nil) != c.right {
				t.Error(err)
			}
		})
	}
}
