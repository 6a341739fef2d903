// Tour shows what package interlock does, on real processes: it starts itself several times. It
// prints what it saw, and exits with status 1 if something was not as promised.
//
//	go run ./examples/tour
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/interlock-go/interlock/internal/proc"
)

// What the processes do that the tour starts.
var processes = map[string]proc.Func{
	"count": count,
	"read":  read,
	"hold":  hold,
	"share": share,
	"build": build,
	"visit": visit,
	"log":   appendToLog,
	"edit":  edit,
	"serve": serve,
}

func main() {
	proc.Run(processes)
	dir, err := os.MkdirTemp("", "interlock-tour-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	t := &tour{dir: dir}
	t.counting()
	t.readersAndAWriter()
	t.deadline()
	t.killedHolder()
	t.nested()
	t.sharedSlots()
	t.limitedBuilds()
	t.lockedFiles()
	t.commonLog()
	t.onlyOne()
	t.whoHoldsIt()
	os.RemoveAll(dir)
	if t.failed > 0 {
		fmt.Printf("\n%d promises broken\n", t.failed)
		os.Exit(1)
	}
	fmt.Println("\nall as promised")
}

type tour struct {
	dir    string
	failed int
}

func (t *tour) title(s string)          { fmt.Printf("\n%s\n", s) }
func (t *tour) path(name string) string { return filepath.Join(t.dir, name) }

// saw reports something seen, and whether it is as promised.
func (t *tour) saw(ok bool, format string, args ...any) {
	mark := "  ok   "
	if !ok {
		mark = "  FAIL "
		t.failed++
	}
	fmt.Printf(mark+format+"\n", args...)
}
