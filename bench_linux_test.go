//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// Speed is asserted as a ratio to what the bare system calls take in the same run, the median of
// many; and since the machine may be busy, only eight misses running are a failure, some seconds apart.

// atMost reports the ratio that measure returns, and fails if it is over the limit.
func atMost(b *testing.B, limit float64, unit string, measure func() float64) {
	b.Helper()
	var ratio float64
	for miss := range 8 {
		time.Sleep(time.Duration(miss) * time.Second)
		ratio = measure()
		b.ReportMetric(ratio, unit)
		b.ReportMetric(0, "ns/op") // of one measurement, which tells nothing
		if ratio <= limit {
			return
		}
		b.Logf("%.2f %s", ratio, unit)
	}
	b.Errorf("%.2f %s, want at most %.2f", ratio, unit, limit)
}

// byTurns returns a measure for [atMost]: the median of the ratios of what n calls take, run by turns
// so that the noise of the machine meets both.
func byTurns(ours, base func(n int) time.Duration) func() float64 {
	const turns, n = 101, 1000
	return func() float64 {
		var ratios []float64
		before := base(n)
		for range turns {
			own, after := ours(n), base(n)
			ratios = append(ratios, 2*float64(own)/float64(before+after))
			before = after
		}
		return median(ratios)
	}
}

func median[T float64 | time.Duration](s []T) T {
	slices.Sort(s)
	return s[len(s)/2]
}

func timed(f func()) func(n int) time.Duration {
	return func(n int) time.Duration {
		begin := time.Now()
		for range n {
			f()
		}
		return time.Since(begin)
	}
}

// barePair is two flock(2) calls on a descriptor of its own.
func barePair(b *testing.B, path string) func() {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	fd := int(f.Fd())
	return func() {
		unix.Flock(fd, unix.LOCK_EX)
		unix.Flock(fd, unix.LOCK_UN)
	}
}

func BenchmarkUncontended(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	const unit = "×two-flock-calls"
	// All anew for each measurement: where in memory it lies makes some hundredths, for as long as it lies there.
	begin := func(b *testing.B) (*FileRWMutex, func(int) time.Duration) {
		m := Must(NewFileRWMutex(filepath.Join(b.TempDir(), "lock")))
		settle(m)
		return m, timed(barePair(b, filepath.Join(b.TempDir(), "bare")))
	}
	limit := 1.6 // 1.48 to 1.57, by machine and by where the linker puts the code
	m, _ := begin(b)
	if !m.file.marked { // it looks at the path each time
		limit = 3.5
	}
	m.Close()
	for name, pair := range map[string]func(*FileRWMutex){
		"Lock":        func(m *FileRWMutex) { m.Lock(); m.Unlock() },
		"LockContext": func(m *FileRWMutex) { m.LockContext(ctx); m.Unlock() },
		"RLock":       func(m *FileRWMutex) { m.RLock(); m.RUnlock() },
	} {
		b.Run(name, func(b *testing.B) {
			atMost(b, limit, unit, func() float64 {
				m, bare := begin(b)
				defer m.Close()
				noAllocs(b, func() { pair(m) })
				return byTurns(timed(func() { pair(m) }), bare)()
			})
		})
	}
	b.Run("RLock/joining", func(b *testing.B) {
		m, bare := begin(b)
		defer m.Close()
		m.RLock()
		defer m.RUnlock()
		join := func() { m.RLock(); m.RUnlock() }
		noAllocs(b, join)
		atMost(b, 0.25, unit, byTurns(timed(join), bare))
	})
}

func noAllocs(b *testing.B, f func()) {
	b.Helper()
	if n := testing.AllocsPerRun(1000, f); n != 0 {
		b.Errorf("%v allocations", n)
	}
}

// Eight goroutines on one object, against eight descriptors on blocking flock(2).
func BenchmarkContended(b *testing.B) {
	path := filepath.Join(b.TempDir(), "lock")
	m := Must(NewFileRWMutex(path))
	defer m.Close()
	settle(m)
	var pairs []func()
	for range 8 {
		pairs = append(pairs, barePair(b, path))
	}
	atMost(b, 1, "×bare-flock-time", byTurns(
		func(n int) time.Duration { return together(n, func(int) { m.Lock(); m.Unlock() }) },
		func(n int) time.Duration { return together(n, func(i int) { pairs[i]() }) },
	))
}

// together times n calls of f on each of eight goroutines.
func together(n int, f func(i int)) time.Duration {
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range 8 {
		wg.Go(func() {
			for range n {
				f(i)
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

func init() {
	children["handoff"] = handoff
	children["busy"] = busy
}

// now is a time that processes have in common, in ns.
func now() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// bareOrOwn is a lock by plain flock(2), or one of ours.
func bareOrOwn(kind, path string) (lock, unlock func()) {
	// A context that can end, without the vet that it must.
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	_ = cancel
	switch kind {
	case "own":
		m := Must(NewFileRWMutex(path))
		return func() { Must(0, m.LockContext(ctx)) }, m.Unlock
	case "semaphore":
		s := Must(NewFileSemaphore(path, 4))
		s.TryAcquire(3) // by the first who comes, so that there is one for all
		return func() { Must(0, s.Acquire(ctx, 1)) }, func() { s.Release(1) }
	}
	f := Must(os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600))
	return func() { unix.Flock(int(f.Fd()), unix.LOCK_EX) }, func() { unix.Flock(int(f.Fd()), unix.LOCK_UN) }
}

// handoff takes the lock for every line it reads, and prints when it had it.
func handoff(args []string) {
	lock, unlock := bareOrOwn(args[0], args[1])
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		lock()
		at := now()
		unlock()
		fmt.Println(at)
	}
}

// From unlock in one process to the lock in another that waits for it.
func BenchmarkHandoff(b *testing.B) { handoffBenchmark(b, 1.5, "own") }

// handoffBenchmark compares a lock of ours to flock(2).
func handoffBenchmark(b *testing.B, limit float64, own string) {
	type pair struct {
		lock, unlock func()
		waiter       *proc.Process
	}
	pairs := map[string]pair{}
	for _, kind := range []string{"bare", own} {
		path := filepath.Join(b.TempDir(), "lock")
		lock, unlock := bareOrOwn(kind, path)
		waiter := proc.Start("handoff", kind, path)
		defer waiter.Kill()
		waiter.Expect("ready")
		pairs[kind] = pair{lock, unlock, waiter}
	}
	atMost(b, limit, "×blocking-flock", func() float64 {
		took := map[string][]float64{}
		for range 300 {
			for kind, p := range pairs {
				p.lock()
				p.waiter.Say("")
				time.Sleep(time.Millisecond)
				begin := now()
				p.unlock()
				end, _ := strconv.ParseInt(p.waiter.Expect(""), 10, 64)
				took[kind] = append(took[kind], float64(end-begin))
			}
		}
		half, bare := median(took[own]), median(took["bare"])
		b.ReportMetric(half/1e3, "µs")
		return half / bare
	})
}

// From cancel to the return of a wait in the kernel.
func BenchmarkCancel(b *testing.B) {
	path := filepath.Join(b.TempDir(), "lock")
	holder, m := Must(NewFileRWMutex(path)), Must(NewFileRWMutex(path))
	defer m.Close()
	defer holder.Close()
	holder.Lock()
	defer holder.Unlock()
	atMost(b, 100, "µs-median", func() float64 {
		var took []float64
		for range 300 {
			ctx, cancel := context.WithCancel(b.Context())
			returned := make(chan time.Time, 1)
			go func() {
				m.LockContext(ctx)
				returned <- time.Now()
			}()
			time.Sleep(time.Millisecond)
			begin := time.Now()
			cancel()
			took = append(took, float64((<-returned).Sub(begin))/1e3)
		}
		half := median(took)
		b.ReportMetric(took[len(took)*99/100], "µs-p99")
		return half
	})
}

// busy contends for the lock with eight goroutines, without a pause, until its input ends.
func busy(args []string) {
	var wg sync.WaitGroup
	var stop atomic.Bool
	lock, unlock := bareOrOwn(args[0], args[1])
	for range 8 {
		if args[0] == "bare" {
			lock, unlock = bareOrOwn(args[0], args[1])
		}
		wg.Go(func() {
			for !stop.Load() {
				lock()
				unlock()
			}
		})
	}
	fmt.Println("ready")
	bufio.NewReader(os.Stdin).ReadString('\n')
	stop.Store(true)
	wg.Wait()
}

// How long a process waits for its turn while eight goroutines of another contend for the lock.
func BenchmarkWaitBesideContention(b *testing.B) {
	if testing.Short() {
		b.Skip("takes long")
	}
	for _, contenders := range []string{"bare", "own"} {
		for _, kind := range []string{"bare", "own"} {
			b.Run(kind+" waits for "+contenders, func(b *testing.B) {
				path := filepath.Join(b.TempDir(), "lock")
				waiter, contender := proc.Start("handoff", kind, path), proc.Start("busy", contenders, path)
				defer contender.Kill()
				defer waiter.Kill()
				waiter.Expect("ready")
				contender.Expect("ready")
				const longest = 2 * time.Second
				var took []float64
				for begin := time.Now(); time.Since(begin) < 2*longest && len(took) < 500; time.Sleep(time.Millisecond) {
					asked := now()
					waiter.Say("")
					line, ok := waiter.Line(longest)
					if !ok {
						took = append(took, float64(longest)/1e3)
						break
					}
					end, _ := strconv.ParseInt(line, 10, 64)
					took = append(took, float64(end-asked)/1e3)
				}
				b.ReportMetric(median(took), "µs-median")
				b.ReportMetric(took[len(took)*99/100], "µs-p99")
				b.ReportMetric(took[len(took)-1], "µs-max")
				b.ReportMetric(float64(len(took)), "turns")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
