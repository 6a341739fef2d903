//go:build linux

package proof

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
)

var duration = flag.Duration("proof.time", 8*time.Second, "how long TestLinearizable runs")

func TestMain(m *testing.M) {
	proc.Run(map[string]proc.Func{"contend": contend})
	os.Setenv("GORACE", os.Getenv("GORACE")+" halt_on_error=1") // a race must end the process
	os.Exit(m.Run())
}

// allAttacks are the actions of the nemesis.
var allAttacks = []string{"kill", "stop", "exhaust descriptors", "replace files", "replace gate files"}

// TestLinearizable runs the workloads in turn until the time is over, and
// checks each history.
func TestLinearizable(t *testing.T) {
	repeat := func(name string, n int) []string { return slices.Repeat([]string{name}, n) }
	workloads := []struct {
		name string
		workload
	}{
		{"FileRWMutex", workload{
			capacity: rwCapacity,
			clients:  3,
			queuing:  repeat("FileRWMutex", 4),
			attacks:  allAttacks,
		}},
		{"FileSemaphore", workload{
			capacity: 4,
			clients:  3,
			queuing:  repeat("FileSemaphore", 4),
			attacks:  allAttacks,
		}},
		{"FileRMutex", workload{
			capacity: rwCapacity,
			clients:  3,
			queuing:  []string{"FileRMutex", "FileRMutex", "FileRWMutex"},
			attacks:  allAttacks,
		}},
		{"FileRWMutexWithOtherPrograms", workload{
			capacity: rwCapacity,
			clients:  2,
			queuing:  repeat("FileRWMutex", 2),
			barging:  []string{"flock(1)", "portalocker"},
			attacks:  allAttacks,
		}},
		{"FileSemaphoreWithPortalocker", workload{
			capacity: 3,
			clients:  2,
			queuing:  repeat("FileSemaphore", 3),
			barging:  []string{"portalocker semaphore"},
			attacks:  allAttacks,
		}},
		{"FileRWMutexUndisturbed", workload{
			capacity: rwCapacity,
			clients:  2,
			queuing:  repeat("FileRWMutex", 2),
		}},
		{"FileSemaphoreUndisturbed", workload{
			capacity: 2,
			clients:  2,
			queuing:  repeat("FileSemaphore", 2),
		}},
	}
	round := min(max(*duration/time.Duration(len(workloads)), 500*time.Millisecond), 1500*time.Millisecond)
	total := make([]summary, len(workloads))
	histories, operations := 0, 0
	for begin := time.Now(); ; {
		for i, b := range workloads {
			ok := t.Run(b.name, func(t *testing.T) {
				attempts, n := run(t, b.workload, round)
				total[i].add(attempts, n)
				// Not os.TempDir, which may be a file system that exists only
				// for the test.
				graph := fmt.Sprintf("/tmp/interlock-history-%d.html", os.Getpid())
				if err := check(attempts, b.capacity, graph); err != nil {
					t.Error(err)
				}
				for _, s := range attempts {
					// Processes that do not queue may overtake and be
					// overtaken.
					if !n.queues(s.process) || s.how != waitForever || s.acquired == 0 {
						continue
					}
					// In a shorter round, a process may be stopped for half the
					// time.
					if n := overtaken(s, attempts); n > len(attempts)/2 && round > time.Second {
						t.Errorf("%d of %d attempts overtook %+v", n, len(attempts), *s)
					}
				}
				histories++
				operations += len(operationsOf(attempts))
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
	for i, b := range workloads {
		t.Logf("%s: %s", b.name, &total[i])
		all = append(all, total[i].waits...)
	}
	slices.Sort(all)
	t.Logf("%d histories with %d operations are linearizable; %s", histories, operations, all)
}

// TestBrokenLocksAreFound proves that the check finds locks that are broken on
// purpose.
func TestBrokenLocksAreFound(t *testing.T) {
	attacks := []string{"replace files", "kill"}
	for name, b := range map[string]workload{
		"UncheckedFile": {capacity: rwCapacity, clients: 3, queuing: []string{"unchecked file", "unchecked file"}, attacks: attacks},
		"EarlyRelease":  {capacity: rwCapacity, clients: 3, queuing: []string{"early release", "early release"}},
		"TooFewUnits":   {capacity: 3, clients: 3, queuing: []string{"too few units", "too few units"}},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				attempts, _ := run(t, b, 500*time.Millisecond)
				switch err := check(attempts, b.capacity, ""); {
				case errors.Is(err, errNoOrder):
					return
				case err != nil:
					t.Error(err)
				}
			}
			t.Error("no history shows that the lock is broken")
		})
	}
}
