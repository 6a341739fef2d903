// Tour shows what package interlock does with real processes. It starts itself
// several times, prints the results, and exits with status 1 if a guarantee did
// not hold.
//
//	go run ./examples/tour
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/interlock-go/interlock/internal/proc"
)

// processes has the functions that the tour runs in processes of their own.
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
		fmt.Printf("\n%d guarantees did not hold\n", t.failed)
		os.Exit(1)
	}
	fmt.Println("\nAll guarantees held.")
}

// A tour counts the guarantees that did not hold.
type tour struct {
	dir    string // for the lock files
	failed int
}

func (t *tour) title(s string)          { fmt.Printf("\n%s\n", s) }
func (t *tour) path(name string) string { return filepath.Join(t.dir, name) }

// shorten replaces the name of the temporary directory in a message.
func (t *tour) shorten(s string) string { return strings.ReplaceAll(s, t.dir, "…") }

// short returns the message of err, which may be nil, without the name of the
// temporary directory.
func (t *tour) short(err error) string { return t.shorten(fmt.Sprint(err)) }

// reportError is report for a result that must come without an error.
func (t *tour) reportError(err error, ok bool, format string, args ...any) {
	if err != nil {
		format, args = format+": %s", append(args, t.short(err))
	}
	t.report(err == nil && ok, format, args...)
}

// report prints a result, and whether it is the expected one.
func (t *tour) report(ok bool, format string, args ...any) {
	mark := "  ok   "
	if !ok {
		mark = "  FAIL "
		t.failed++
	}
	fmt.Printf(mark+format+"\n", args...)
}
