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

	"golang.org/x/sys/unix"
)

// A history is everything that happened to one lock. The logs of all processes
// contain it, one event per line:
//
//	call     TIME PROCESS CLIENT HOW WEIGHT VALUE  will acquire, then write VALUE unless it is 0
//	acquired TIME PROCESS CLIENT                   has acquired
//	release  TIME PROCESS CLIENT VALUE             will release; read VALUE, before it wrote
//	end      TIME PROCESS CLIENT OUTCOME           has released, or failed to acquire
//	kill     TIME PROCESS                          will be killed
//	dead     TIME PROCESS                          is gone
//	few      TIME PROCESS                          will have few descriptors
//	many     TIME PROCESS                          has as many descriptors as before
//
// A client is a goroutine that makes one attempt after the other. A lock has a
// capacity, and an attempt takes a weight of it. The capacity of a semaphore is
// its size. For other locks it is rwCapacity: a writer takes all of it, a
// reader takes 1.
type event struct {
	what            string
	time            int64
	process, client int
	how             string
	weight          int64
	value           uint64
	outcome         string
}

// Ways of a client to acquire the lock.
const (
	waitForever   = "waits"     // wait as long as necessary
	waitUntilDone = "waitsSome" // wait until the context is done
	tryOnce       = "tries"     // do not wait
	openLock      = "opens"     // open the lock, without acquiring it
)

// Outcomes of an attempt. Any other outcome is the text of an error.
const (
	done   = "done"   // the client had the lock
	locked = "locked" // the lock was held by others
	ended  = "ended"  // the context was done
)

// clock returns the time in nanoseconds. CLOCK_MONOTONIC is the same for all
// processes.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// A journal is the log of one process. Each event is written immediately, so
// that the log is complete when the process is killed.
type journal struct {
	mu      sync.Mutex
	file    *os.File
	process int
}

func openJournal(dir string, process int) *journal {
	path := filepath.Join(dir, fmt.Sprintf("journal.%d", process))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
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

// acquired and end read the clock before they write, so that the time of the
// write does not count.
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

// about logs an event of another process.
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
		err = errors.New("unknown event")
	}
	return e, err
}

// readJournals returns the events of all journals in dir, sorted by time.
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
				continue // the process was killed while it wrote
			}
			e, err := parse(string(line))
			if err != nil {
				return nil, fmt.Errorf("%s: %q: %w", name, line, err)
			}
			events = append(events, e)
		}
	}
	// The sort is stable: events of one process with equal times stay in order.
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.time, b.time) })
	return events, nil
}

// An attempt is everything that a client did from a call to its end. A time is
// 0 if the client did not come that far.
type attempt struct {
	process, client int
	how             string
	weight          int64
	value           uint64 // the value to write, or 0
	saw             uint64 // the value that was read
	called          int64
	acquired        int64
	release         int64 // the client released, or its process was killed
	ended           int64 // at the latest; after a kill, when the process was gone
	sawKnown        bool  // saw is known: the client came as far as release
	killed          bool
	few             bool // the process had few descriptors during the attempt
	outcome         string
}

func (s *attempt) writes() bool { return s.value != 0 }

// attemptsOf returns the attempts of all clients.
func attemptsOf(events []event) ([]*attempt, error) {
	type key struct{ process, client int }
	open := make(map[key]*attempt)
	few := make(map[int]bool)
	killed := make(map[int]int64) // time of the kill event, by process
	var all []*attempt
	for _, e := range events {
		k := key{e.process, e.client}
		s := open[k]
		if s == nil && (e.what == "acquired" || e.what == "release" || e.what == "end") {
			return nil, fmt.Errorf("event without a call: %+v", e)
		}
		switch e.what {
		case "call":
			s = &attempt{
				process: e.process,
				client:  e.client,
				how:     e.how,
				weight:  e.weight,
				value:   e.value,
				called:  e.time,
				few:     few[e.process],
			}
			open[k] = s
			all = append(all, s)
		case "acquired":
			s.acquired = e.time
		case "release":
			s.release, s.saw, s.sawKnown = e.time, e.value, true
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
		case "kill", "dead":
			// A process continues for a moment after the kill event, and is
			// gone a moment before the dead event.
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
		return nil, fmt.Errorf("attempt without an end: %+v", *s)
	}
	return all, nil
}
