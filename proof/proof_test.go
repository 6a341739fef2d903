//go:build linux

package proof

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
)

var duration = flag.Duration("proof.time", 8*time.Second, "how long TestLinearizable goes on")

func TestMain(m *testing.M) {
	proc.Run(map[string]proc.Func{"contend": contend})
	os.Setenv("GORACE", os.Getenv("GORACE")+" halt_on_error=1") // a race ends a contender, so that it is seen
	os.Exit(m.Run())
}

var kills = []string{"kill", "stop", "exhaust descriptors", "replace", "replace gates"}

// TestLinearizable lets locks be fought for, each in turn, until the time is over, and searches each history.
func TestLinearizable(t *testing.T) {
	battles := []struct {
		name string
		battle
	}{
		{"FileRWMutex", battle{mutex, 3, []string{"FileRWMutex", "FileRWMutex", "FileRWMutex", "FileRWMutex"}, nil, kills}},
		{"FileSemaphore", battle{4, 3, []string{"FileSemaphore", "FileSemaphore", "FileSemaphore", "FileSemaphore"}, nil, kills}},
		{"FileRMutex", battle{mutex, 3, []string{"FileRMutex", "FileRMutex", "FileRWMutex"}, nil, kills}},
		{"FileRWMutex beside flock(1) and portalocker", battle{mutex, 2, []string{"FileRWMutex", "FileRWMutex"}, []string{"flock(1)", "portalocker"}, kills}},
		{"FileSemaphore beside portalocker", battle{3, 2, []string{"FileSemaphore", "FileSemaphore", "FileSemaphore"}, []string{"portalocker semaphore"}, kills}},
		{"FileRWMutex in peace", battle{mutex, 2, []string{"FileRWMutex", "FileRWMutex"}, nil, nil}},
		{"FileSemaphore in peace", battle{2, 2, []string{"FileSemaphore", "FileSemaphore"}, nil, nil}},
	}
	round := min(max(*duration/time.Duration(len(battles)), 500*time.Millisecond), 1500*time.Millisecond)
	total := make([]summary, len(battles))
	histories, operations := 0, 0
	for begin := time.Now(); ; {
		for i, b := range battles {
			ok := t.Run(b.name, func(t *testing.T) {
				stays, n := fight(t, b.battle, round)
				total[i].add(stays, n)
				if err := check(stays, b.capacity, "/tmp/interlock-history-"+strconv.Itoa(os.Getpid())+".html"); err != nil {
					t.Error(err)
				}
				for _, s := range stays {
					// Those who do not queue can overtake, and be overtaken.
					if f := n.all[s.process]; f == nil || !slices.Contains(b.fair, f.name) || s.how != waits || s.acquired == 0 {
						continue
					}
					if n := overtaken(s, stays); n > len(stays)/2 && round > time.Second { // in less, one is stopped for too large a part
						t.Errorf("%+v was overtaken by %d of %d", *s, n, len(stays))
					}
				}
				histories++
				operations += len(operationsOf(stays))
			})
			if !ok {
				return
			}
		}
		if time.Since(begin) >= *duration {
			break
		}
	}
	var all distribution
	for i, b := range battles {
		t.Logf("%s: %s", b.name, &total[i])
		all = append(all, total[i].waits...)
	}
	slices.Sort(all)
	t.Logf("%d histories with %d operations are linearizable; of %s", histories, operations, all)
}

// A summary of the histories of one battle.
type summary struct {
	had, locked, ended, failed, killed int
	did                                map[string]int
	waits                              distribution
}

func (s *summary) add(all []*stay, n *nemesis) {
	if s.did == nil {
		s.did = make(map[string]int)
	}
	for what, times := range n.did {
		s.did[what] += times
	}
	for _, st := range all {
		switch {
		case st.killed:
			s.killed++
		case st.how == opens:
		case st.outcome == done:
			s.had++
		case st.outcome == locked:
			s.locked++
		case st.outcome == ended:
			s.ended++
		default:
			s.failed++
		}
		if f := n.all[st.process]; f != nil && slices.Contains(n.fair, f.name) && st.acquired != 0 && st.how == waits {
			s.waits = append(s.waits, time.Duration(st.acquired-st.called))
		}
	}
	slices.Sort(s.waits)
}

func (s *summary) String() string {
	return fmt.Sprintf("had the lock %d times; %d tries failed, %d contexts ended, %d had no descriptors, %d were killed\n\tnemesis: %v\n\t%v",
		s.had, s.locked, s.ended, s.failed, s.killed, s.did, s.waits)
}

// The same finds the locks that are broken.
func TestBrokenLocksAreFound(t *testing.T) {
	for name, b := range map[string]battle{
		"without a look at the file": {mutex, 3, []string{"without a look at the file", "without a look at the file"}, nil, []string{"replace", "kill"}},
		"released before the write":  {mutex, 3, []string{"released before the write", "released before the write"}, nil, nil},
		"units taken one too few":    {3, 3, []string{"units taken one too few", "units taken one too few"}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				stays, _ := fight(t, b, 500*time.Millisecond)
				switch err := check(stays, b.capacity, ""); {
				case errors.Is(err, errNoOrder):
					return
				case err != nil:
					t.Error(err)
				}
			}
			t.Error("not found")
		})
	}
}
