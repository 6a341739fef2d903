//go:build linux

// Scale measures how the locks of package interlock grow: many processes on one lock, many goroutines on many
// locks, and many processes on one semaphore. It prints a table, and with -o writes it and a plot there, as docs/scale.md has
// them:
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

var processes = map[string]proc.Func{"contend": contend}

func main() {
	proc.Run(processes)
	out := flag.String("o", "", "the directory to write scale.md and scale.svg to")
	race := flag.Duration("race", 10*time.Second, "how long to contend, each time")
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
	for _, c := range []crowd{
		{what: "processes on one lock", processes: 10, goroutines: 1, locks: 1},
		{what: "processes on one lock", processes: 100, goroutines: 1, locks: 1},
		{what: "processes on one lock", processes: 1000, goroutines: 1, locks: 1},
		{what: "processes on bare flock(2)", processes: 10, goroutines: 1, locks: 1, bare: true},
		{what: "processes on bare flock(2)", processes: 100, goroutines: 1, locks: 1, bare: true},
		{what: "processes on bare flock(2)", processes: 1000, goroutines: 1, locks: 1, bare: true},
		{what: "goroutines of 2 processes, on a tenth as many locks", processes: 2, goroutines: 50, locks: 10},
		{what: "goroutines of 2 processes, on a tenth as many locks", processes: 2, goroutines: 500, locks: 100},
		{what: "goroutines of 2 processes, on a tenth as many locks", processes: 2, goroutines: 5000, locks: 1000},
		{what: "processes on a semaphore of 4 units", processes: 10, goroutines: 1, units: 4},
		{what: "processes on a semaphore of 4 units", processes: 50, goroutines: 1, units: 4},
		{what: "processes on a semaphore of 4 units", processes: 200, goroutines: 1, units: 4},
	} {
		r, err := measure(c, filepath.Join(dir, fmt.Sprint(len(rows))), race, 5*time.Second)
		if err != nil {
			return fmt.Errorf("%d %s: %w", c.members(), c.what, err)
		}
		fmt.Fprintf(os.Stderr, "%d %s: done\n", c.members(), c.what)
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
