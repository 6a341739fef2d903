//go:build linux

// Scale measures how the costs of package interlock grow with the number of
// waiters: processes on one lock, goroutines on many locks, and processes on
// one semaphore. It prints a table. With -o it also writes the table and a plot
// to that directory, as in docs/scale.md:
//
//	go run ./scale -o ../docs
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
)

// processes are the functions that package proc runs in other processes.
var processes = map[string]proc.Func{"contend": contend}

func main() {
	proc.Run(processes)
	out := flag.String("o", "", "write scale.md and scale.svg to this `directory`")
	race := flag.Duration("race", 10*time.Second, "how long each workload contends")
	flag.Parse()
	if err := run(*out, *race); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out string, race time.Duration) error {
	dir, err := os.MkdirTemp("", "interlock-scale-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var rows []row
	for _, c := range []workload{
		{kind: "processes on one lock", processes: 10, goroutines: 1, locks: 1},
		{kind: "processes on one lock", processes: 100, goroutines: 1, locks: 1},
		{kind: "processes on one lock", processes: 1000, goroutines: 1, locks: 1},
		{kind: "processes on bare flock(2)", processes: 10, goroutines: 1, locks: 1, bare: true},
		{kind: "processes on bare flock(2)", processes: 100, goroutines: 1, locks: 1, bare: true},
		{kind: "processes on bare flock(2)", processes: 1000, goroutines: 1, locks: 1, bare: true},
		{kind: "goroutines of 2 processes, on a tenth as many locks", processes: 2, goroutines: 50, locks: 10},
		{kind: "goroutines of 2 processes, on a tenth as many locks", processes: 2, goroutines: 500, locks: 100},
		{kind: "goroutines of 2 processes, on a tenth as many locks", processes: 2, goroutines: 5000, locks: 1000},
		{kind: "processes on a semaphore of 4 units", processes: 10, goroutines: 1, units: 4},
		{kind: "processes on a semaphore of 4 units", processes: 50, goroutines: 1, units: 4},
		{kind: "processes on a semaphore of 4 units", processes: 200, goroutines: 1, units: 4},
	} {
		r, err := measure(c, filepath.Join(dir, fmt.Sprint(len(rows))), race, 5*time.Second)
		if err != nil {
			return fmt.Errorf("%d %s: %w", c.members(), c.kind, err)
		}
		fmt.Fprintf(os.Stderr, "%d %s: done\n", c.members(), c.kind)
		rows = append(rows, r)
	}
	var b strings.Builder
	table(&b, rows)
	fmt.Print(b.String())
	if out == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(out, "scale.md"), page(b.String()), 0o644); err != nil {
		return err
	}
	return plotTo(rows, filepath.Join(out, "scale.svg"))
}
