package interlock

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// These benchmarks measure what polling costs, in delay and in CPU time. The
// machine may be busy, so a limit is exceeded only if five measurements exceed
// it.

// atMost reports the result of measure, and fails if that exceeds the limit.
func atMost(b *testing.B, limit float64, unit string, measure func() float64) {
	b.Helper()
	var x float64
	for range 5 {
		x = measure()
		b.ReportMetric(x, unit)
		b.ReportMetric(0, "ns/op") // of a single measurement, which means nothing
		if x <= limit {
			return
		}
		b.Logf("%.2f %s", x, unit)
	}
	b.Errorf("%.2f %s, want at most %.2f", x, unit, limit)
}

// The time from an unlock to the return of a lock call that has waited for a
// while. A call that has waited for long polls rarely, so it has no limit.
func BenchmarkHandoff(b *testing.B) {
	for held, limit := range map[time.Duration]float64{
		time.Millisecond: 2, 10 * time.Millisecond: 2, 30 * time.Millisecond: 2, time.Second: math.Inf(1),
	} {
		b.Run(held.String(), func(b *testing.B) {
			path := lockPath(b)
			holder, m := newMutex(b, path), newMutex(b, path)
			atMost(b, limit, "ms", func() float64 {
				var took []float64
				for range min(51, 5*time.Second/held) {
					holder.Lock()
					var locked time.Time
					waiter := start(func() error { m.Lock(); locked = time.Now(); m.Unlock(); return nil })
					time.Sleep(held)
					begin := time.Now()
					holder.Unlock()
					finish(b, waiter)
					took = append(took, float64(locked.Sub(begin))/float64(time.Millisecond))
				}
				slices.Sort(took)
				return took[len(took)/2]
			})
		})
	}
}

func init() { children["idler"] = idler }

// idler waits for a lock. For each line of the input it prints its CPU time.
func idler(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	go m.Lock()
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var created, exited, kernel, user windows.Filetime
		if err := windows.GetProcessTimes(windows.CurrentProcess(), &created, &exited, &kernel, &user); err != nil {
			panic(err)
		}
		in100ns := func(t windows.Filetime) int64 { return int64(t.HighDateTime)<<32 | int64(t.LowDateTime) }
		fmt.Println("worked", time.Duration(100*(in100ns(kernel)+in100ns(user))))
	}
}

// The CPU time of a process that has waited for some seconds.
func BenchmarkIdleWaiter(b *testing.B) {
	path := lockPath(b)
	m := newMutex(b, path)
	m.Lock()
	defer m.Unlock()
	p := startServer(b, "idler", path)
	worked := func() time.Duration {
		return Must(time.ParseDuration(p.Ask("worked", "worked")))
	}
	time.Sleep(4 * time.Second)
	atMost(b, 1, "%core", func() float64 {
		before, begin := worked(), time.Now()
		time.Sleep(5 * time.Second)
		return 100 * float64(worked()-before) / float64(time.Since(begin))
	})
}
