package atpath

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/interlock-go/interlock/internal/proc"
)

// children are what the test binary does in child processes.
var children = map[string]proc.Func{}

func TestMain(m *testing.M) {
	proc.Run(children)
	goleak.VerifyTestMain(m)
}

var (
	errOpen    = errors.New("open failed")
	errLock    = errors.New("lock failed")
	errCurrent = errors.New("current failed")
)

// A round is what the steps of one round answer.
type round struct {
	open    error
	lock    error
	stale   bool
	current error
}

// play calls Lock with steps that follow a script, one round after another. The
// file of round n is n, counted from 1. It returns what Lock returns, and a
// letter for each step that Lock took.
func play(ctx context.Context, script []round) (file int, steps string, err error) {
	n := 0
	var log strings.Builder
	file, err = Lock(ctx, Steps[int]{
		Open:    func() (int, error) { log.WriteByte('o'); n++; return n, script[n-1].open },
		Lock:    func(f int) error { log.WriteByte('l'); return script[f-1].lock },
		Current: func(f int) (bool, error) { log.WriteByte('c'); return !script[f-1].stale, script[f-1].current },
		Discard: func(int) { log.WriteByte('d') },
	})
	return file, log.String(), err
}

func TestLock(t *testing.T) {
	forgotten := &fs.PathError{Op: "lock", Path: "x", Err: fs.ErrNotExist}
	for name, c := range map[string]struct {
		script []round
		file   int
		err    error
		steps  string
	}{
		"at once":                        {[]round{{}}, 1, nil, "olc"},
		"path changed during open":       {[]round{{open: fmt.Errorf("x: %w", ErrAgain)}, {}}, 2, nil, "oolc"},
		"open fails":                     {[]round{{open: errOpen}}, 0, errOpen, "o"},
		"stale once":                     {[]round{{stale: true}, {}}, 2, nil, "olcdolc"},
		"stale twice, then open fails":   {[]round{{stale: true}, {stale: true}, {open: errOpen}}, 0, errOpen, "olcdolcdo"},
		"lock fails":                     {[]round{{lock: errLock}}, 1, errLock, "olc"},
		"lock fails, stale":              {[]round{{lock: errLock, stale: true}, {}}, 2, nil, "olcdolc"},
		"lock fails, forgotten":          {[]round{{lock: forgotten}, {}}, 2, nil, "oldolc"},
		"current fails":                  {[]round{{current: errCurrent}}, 0, errCurrent, "olcd"},
		"current fails, stale":           {[]round{{current: errCurrent, stale: true}}, 0, errCurrent, "olcd"},
		"lock and current fail":          {[]round{{lock: errLock, current: errCurrent}}, 0, errLock, "olcd"},
		"stale once, then lock fails":    {[]round{{stale: true}, {lock: errLock}}, 2, errLock, "olcdolc"},
		"stale once, then current fails": {[]round{{stale: true}, {current: errCurrent}}, 0, errCurrent, "olcdolcd"},
	} {
		t.Run(name, func(t *testing.T) {
			file, steps, err := play(context.Background(), c.script)
			if file != c.file || err != c.err || steps != c.steps {
				t.Errorf("got %d, %v, %s; want %d, %v, %s", file, err, steps, c.file, c.err, c.steps)
			}
		})
	}
}

func TestLockChecksContextBeforeEachRound(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	opens := 0
	steps := Steps[int]{
		Open:    func() (int, error) { opens++; return 1, nil },
		Lock:    func(int) error { cancel(); return nil },
		Current: func(int) (bool, error) { return false, nil },
		Discard: func(int) {},
	}
	for range 2 { // The second call begins with a canceled context.
		if file, err := Lock(ctx, steps); file != 0 || err != context.Canceled || opens != 1 {
			t.Errorf("got %d, %v after %d opens", file, err, opens)
		}
	}
}

func TestLockGivesUp(t *testing.T) {
	for name, again := range map[string]round{
		"path changes":   {open: ErrAgain},
		"file stale":     {stale: true},
		"file forgotten": {lock: fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			file, steps, err := play(context.Background(), slices.Repeat([]round{again}, maxRounds))
			if file != 0 || err != ErrUnstable || strings.Count(steps, "o") != maxRounds {
				t.Errorf("got %d, %v after %d opens", file, err, strings.Count(steps, "o"))
			}
			if took := time.Since(begin); took < 100*time.Millisecond {
				t.Errorf("gave up after %v, without pauses", took)
			}
		})
	}
}

func TestLockDoesNotAllocate(t *testing.T) {
	ctx := context.Background()
	n := 0
	allocs := testing.AllocsPerRun(100, func() {
		f, err := Lock(ctx, Steps[*int]{
			Open:    func() (*int, error) { n++; return &n, nil },
			Lock:    func(*int) error { return nil },
			Current: func(f *int) (bool, error) { return *f%2 == 0, nil },
			Discard: func(*int) {},
		})
		if f != &n || err != nil {
			t.Error(f, err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per call", allocs)
	}
}
