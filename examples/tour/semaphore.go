package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/lockedfile"
)

func (t *tour) nested() {
	t.title("Functions that lock call each other")
	path := t.path("nested.lock")
	mu := interlock.Must(interlock.NewFileRMutex(path))
	defer mu.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	deepest := 0
	var descend func(ctx context.Context, levels int) error
	descend = func(ctx context.Context, levels int) error {
		return mu.Do(ctx, func(ctx context.Context) error {
			o, _ := interlock.OwnerFromContext(ctx)
			deepest = max(deepest, mu.Depth(o))
			if levels == 1 {
				if mu.TryLock(interlock.NewOwner()) {
					return errors.New("another owner acquired the lock")
				}
				return nil
			}
			return descend(ctx, levels-1)
		})
	}
	err := descend(ctx, 5)
	t.reportError(err, deepest == 5, "one owner held the lock %d times, and another owner could not acquire it", deepest)
	p := proc.Start("hold", path)
	defer p.Kill()
	p.Expect("held")
	t.report(!mu.TryLock(interlock.NewOwner()), "afterwards another process could acquire it")
}

const units, sharedTurns = 3, 20

func (t *tour) sharedSlots() {
	t.title("Six processes share three units, each acquires one, two or three; one process is killed")
	name, log := t.path("shared"), t.path("shared.log")
	var ps []*proc.Process
	for i := range 6 {
		ps = append(ps, proc.Start("share", name, strconv.Itoa(i%units+1), log))
	}
	for _, p := range ps { // all start together, so that they contend
		p.Expect("ready")
	}
	for _, p := range ps {
		p.Say("go")
	}
	victim := ps[2] // acquires all three
	victim.Expect("under way")
	victim.Kill()
	for _, p := range ps {
		if p != victim {
			p.Expect("under way")
			p.Expect("done")
			p.Close()
		}
	}
	most, turns := inUse(log, victim.Pid())
	t.report(turns >= 5*sharedTurns, "%d turns, which include all turns of the other five processes", turns)
	t.report(most == units, "at most %d of %d units were in use at once", most, units)
	sem := interlock.Must(interlock.NewFileSemaphore(name, units))
	defer sem.Close()
	free := sem.TryAcquire(units)
	t.report(free, "now all are free, also those of the killed process")
	if free {
		sem.Release(units)
	}
}

// share acquires and releases units again and again.
func share(args []string) {
	weight, _ := strconv.ParseInt(args[1], 10, 64)
	sem := interlock.Must(interlock.NewFileSemaphore(args[0], units))
	note := notes(args[2])
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	in.Scan()
	for i := range sharedTurns {
		interlock.Must(0, sem.Acquire(context.Background(), weight))
		note(weight)
		if i == sharedTurns/2 {
			fmt.Println("under way")
		}
		time.Sleep(time.Millisecond)
		note(-weight)
		sem.Release(weight)
	}
	fmt.Println("done")
}

// notes returns a function that appends a number of units to a log that several
// processes share: positive when they were acquired, and negative before they
// are released.
func notes(path string) func(n int64) {
	ctx := lockedfile.WithoutSync(context.Background())
	return func(n int64) {
		interlock.Must(0, lockedfile.Append(ctx, path, fmt.Appendln(nil, os.Getpid(), n), 0o600))
	}
}

// inUse reads the log. It returns the largest number of units in use at once,
// and the number of acquisitions. The units of the killed process count as
// released after its last line.
func inUse(path string, killed int) (most, turns int) {
	data, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	last := 0
	for i, line := range lines {
		if strings.HasPrefix(line, fmt.Sprint(killed, " ")) {
			last = i
		}
	}
	sum, had := 0, 0
	for i, line := range lines {
		var pid, n int
		fmt.Sscan(line, &pid, &n)
		sum += n
		if pid == killed {
			had += n
		}
		if n > 0 {
			turns++
		}
		most = max(most, sum)
		if i == last {
			sum -= had
		}
	}
	return most, turns
}

func (t *tour) limitedBuilds() {
	const limit, builders = 2, 3
	t.title("Three processes start ten jobs each; the machine runs two at a time")
	name, log := t.path("builds"), t.path("builds.log")
	var ps []*proc.Process
	for range builders {
		ps = append(ps, proc.Start("build", name, strconv.Itoa(limit), log))
	}
	for _, p := range ps {
		p.Expect("done")
		p.Close()
	}
	most, n := inUse(log, 0)
	t.report(n == builders*jobs && most == limit, "%d jobs ran, at most %d at once", n, most)
}

const jobs = 10

// build runs jobs in a Group.
func build(args []string) {
	limit, _ := strconv.ParseInt(args[1], 10, 64)
	sem := interlock.Must(interlock.NewFileSemaphore(args[0], limit))
	note := notes(args[2])
	g, ctx := sem.Group(context.Background())
	for range jobs {
		g.Go(func() error {
			note(1)
			time.Sleep(2 * time.Millisecond)
			note(-1)
			return ctx.Err()
		})
	}
	interlock.Must(0, g.Wait())
	fmt.Println("done")
}
