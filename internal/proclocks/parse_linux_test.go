//go:build !interlock_bsd

package proclocks

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

var parseTests = []struct {
	line string
	want Lock
	ok   bool
}{
	{"FLOCK  ADVISORY  WRITE 1234 08:01:4711 0 EOF", Lock{Kind: "FLOCK", PID: 1234, End: math.MaxInt64}, true},
	{"FLOCK  ADVISORY  READ 1234 08:01:4711 0 EOF", Lock{Kind: "FLOCK", Shared: true, PID: 1234, End: math.MaxInt64}, true},
	{"-> FLOCK  ADVISORY  WRITE 7 08:01:4711 0 EOF", Lock{Kind: "FLOCK", Waiting: true, PID: 7, End: math.MaxInt64}, true},
	{" -> FLOCK  ADVISORY  READ 7 08:01:4711 0 EOF", Lock{Kind: "FLOCK", Shared: true, Waiting: true, PID: 7, End: math.MaxInt64}, true},
	{"OFDLCK ADVISORY  WRITE -1 08:01:4711 2305843009213693952 2305843009213693952", Lock{Kind: "OFDLCK", Start: 1 << 61, End: 1 << 61}, true},
	{"-> OFDLCK ADVISORY  READ -1 08:01:4711 5 EOF", Lock{Kind: "OFDLCK", Shared: true, Waiting: true, Start: 5, End: math.MaxInt64}, true},
	{"POSIX  ADVISORY  READ 1234 00:2f:4711 10 19", Lock{Kind: "POSIX", Shared: true, PID: 1234, Start: 10, End: 19}, true},
	{"POSIX  MANDATORY WRITE 1234 00:2f:4711 10 19", Lock{Kind: "POSIX", PID: 1234, Start: 10, End: 19}, true},
	{"LEASE  ACTIVE    READ  1234 08:01:4711 0 EOF", Lock{}, false},
	{"DELEG  ACTIVE    READ  1234 08:01:4711 0 EOF", Lock{}, false},
	{"FLOCK  ADVISORY  WRITE 1234 <none>:0 EOF", Lock{}, false},
	{"FLOCK  ADVISORY  WRITE x 08:01:4711 0 EOF", Lock{}, false},
	{"FLOCK  ADVISORY  WRITE 1234 08:01:4711 x EOF", Lock{}, false},
	{"FLOCK  ADVISORY  WRITE 1234 08:01:4711 0 x", Lock{}, false},
	{"FLOCK  ADVISORY  WRITE 1234 08:01:4711 0 EOF 1", Lock{}, false},
	{"->", Lock{}, false},
	{"", Lock{}, false},
}

func TestParse(t *testing.T) {
	for _, test := range parseTests {
		if got, ok := parse(test.line); got != test.want || ok != test.ok {
			t.Errorf("%q: %+v, %t, want %+v, %t", test.line, got, ok, test.want, test.ok)
		}
	}
}

// FuzzParse checks that a line is rejected or says what its Lock says.
func FuzzParse(f *testing.F) {
	for _, test := range parseTests {
		f.Add(test.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		l, ok := parse(line)
		if !ok {
			if l != (Lock{}) {
				t.Errorf("%+v of a line that is rejected", l)
			}
			return
		}
		if !slices.Contains([]string{"FLOCK", "OFDLCK", "POSIX"}, l.Kind) || l.PID < 0 {
			t.Errorf("%+v", l)
		}
		again := format(l)
		if got, ok := parse(again); got != l || !ok {
			t.Errorf("%q: %+v, %t, want %+v", again, got, ok, l)
		}
	})
}

// format returns the line of /proc/locks about a lock.
func format(l Lock) string {
	arrow, mode, pid, end := "", "WRITE", l.PID, fmt.Sprint(l.End)
	if l.Waiting {
		arrow = "-> "
	}
	if l.Shared {
		mode = "READ"
	}
	if pid == 0 {
		pid = -1
	}
	if l.End == math.MaxInt64 {
		end = "EOF"
	}
	return fmt.Sprintf("%s%-6s ADVISORY  %s %d 08:01:4711 %d %s", arrow, l.Kind, mode, pid, l.Start, end)
}

const list = `1: FLOCK  ADVISORY  WRITE 100 08:01:47 0 EOF
2: FLOCK  ADVISORY  READ 101 08:01:471 0 EOF
3: FLOCK  ADVISORY  WRITE 102 108:01:47 0 EOF
4: OFDLCK ADVISORY  READ -1 08:01:47 0 0
5: OFDLCK ADVISORY  READ -1 08:01:47 0 0
6: POSIX  ADVISORY  WRITE 103 08:01:47 0 0
6: -> POSIX  ADVISORY  WRITE 104 08:01:47 0 0
7: POSIX  ADVISORY  WRITE 103 08:01:47 0 0
`

func TestFind(t *testing.T) {
	want := []string{
		"FLOCK  ADVISORY  WRITE 100 08:01:47 0 EOF",
		"OFDLCK ADVISORY  READ -1 08:01:47 0 0",
		"OFDLCK ADVISORY  READ -1 08:01:47 0 0", // another, for all we know
		"POSIX  ADVISORY  WRITE 103 08:01:47 0 0",
		"-> POSIX  ADVISORY  WRITE 104 08:01:47 0 0",
	}
	if got := find(list, "08:01:47"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := find(list, "08:01:4"); got != nil {
		t.Errorf("%q of another file", got)
	}
}

func TestMerge(t *testing.T) {
	const a, b, c = "FLOCK  ADVISORY  READ 1 08:01:47 0 EOF", "FLOCK  ADVISORY  READ 2 08:01:47 0 EOF", "FLOCK  ADVISORY  READ 3 08:01:47 0 EOF"
	const unnamed, gone = "OFDLCK ADVISORY  READ -1 08:01:47 0 0", "OFDLCK ADVISORY  READ -1 08:01:47 1 1"
	got := merge([]string{a, unnamed, b, unnamed, gone}, []string{c, unnamed, b})
	if want := []string{c, unnamed, b, a}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// lists is /proc/locks with contents that change each time that it is read from
// the start.
type lists struct {
	contents []string
	n        int // how many have been read
}

func (l *lists) ReadAt(page []byte, at int64) (int, error) {
	if at == 0 {
		l.n++
	}
	return strings.NewReader(l.contents[l.n-1]).ReadAt(page, at)
}

// At the seam between two pages, a lock can be missing from a list or appear
// twice. Reading the list again corrects both.
func TestLongListIsReadAgain(t *testing.T) {
	const name, line = "08:01:47", "FLOCK  ADVISORY  WRITE 100 08:01:47 0 EOF"
	others := strings.Repeat("1: FLOCK  ADVISORY  WRITE 100 08:01:4711 0 EOF\n", 200)
	without, once := others, others+"2: "+line+"\n"
	twice := once + "3: " + line + "\n"
	for _, contents := range [][]string{{once, without, without}, {without, once, without}, {without, without, once}, {twice, once, twice}} {
		l := &lists{contents: contents}
		if got, err := linesOf(l, name); err != nil || !slices.Equal(got, []string{line}) {
			t.Errorf("%q, %v", got, err)
		}
	}
	short := &lists{contents: []string{"1: " + line + "\n"}}
	if got, err := linesOf(short, name); err != nil || !slices.Equal(got, []string{line}) || short.n != 1 {
		t.Errorf("%q, %v, after reading it %d times", got, err, short.n)
	}
}

func TestReadAll(t *testing.T) {
	for _, test := range []struct{ size, length, reads int }{{10, 0, 0}, {10, 9, 1}, {10, 10, 1}, {10, 11, 2}, {10, 25, 3}} {
		text := strings.Repeat("x", test.length)
		data, reads, err := readAll(strings.NewReader(text), test.size)
		if data != text || reads != test.reads || err != nil {
			t.Errorf("%d bytes of %d in %d reads of %d, %v", len(data), test.length, reads, test.size, err)
		}
	}
}
