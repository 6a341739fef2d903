//go:build !interlock_bsd

package interlock

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
	"golang.org/x/sync/semaphore"
)

// settledSemaphore returns a semaphore whose files are so old that it makes
// only the fewest system calls.
func settledSemaphore(b *testing.B, size int64) *FileSemaphore {
	s := newSemaphore(b, semName(b), size)
	for range 2 {
		s.Acquire(b.Context(), size)
		s.Release(size)
		time.Sleep(2 * ctimeSettled)
	}
	return s
}

func BenchmarkSemaphoreUncontended(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	limit := 2.8
	pair := func(b *testing.B, size int64) func() {
		s := settledSemaphore(b, size)
		if !s.gate.file.marked { // then it looks at the path each time
			limit = 4.4
		}
		f := func() { s.Acquire(ctx, 1); s.Release(1) }
		noAllocs(b, f)
		noAllocs(b, func() { s.TryAcquire(1); s.Release(1) })
		return f
	}
	b.Run("4", func(b *testing.B) {
		bare := timed(barePair(b, filepath.Join(b.TempDir(), "bare")))
		measure := byTurns(timed(pair(b, 4)), bare)
		atMost(b, limit, "×two-flock-calls", measure)
	})
	b.Run("64", func(b *testing.B) {
		atMost(b, 1.2, "×size-4", byTurns(timed(pair(b, 64)), timed(pair(b, 4))))
	})
}

// BenchmarkSemaphoreHandoff measures the time from a release in one process
// until another, which waits for the unit, has it.
func BenchmarkSemaphoreHandoff(b *testing.B) {
	handoffBenchmark(b, 2, "semaphore")
}

// weighted has the methods of semaphore.Weighted that its benchmarks use.
type weighted interface {
	Acquire(context.Context, int64) error
	TryAcquire(int64) bool
	Release(int64)
}

// BenchmarkNewSeq and BenchmarkAcquireSeq are the benchmarks of
// golang.org/x/sync/semaphore. They compare a semaphore of the whole machine
// with one of a single process.
func BenchmarkNewSeq(b *testing.B) {
	for _, size := range []int64{1, 128} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			if size > 1 {
				longtest.Skip(b)
			}
			name := semName(b)
			own := timed(func() { Must(0, Must(NewFileSemaphore(name, size)).Close()) })
			var w *semaphore.Weighted
			memory := timed(func() { w = semaphore.NewWeighted(size) })
			const n = 1000
			var ratios []float64
			for range 11 {
				ratios = append(ratios, n*float64(own(n))/float64(memory(n*n)))
			}
			runtime.KeepAlive(w)
			b.ReportMetric(median(ratios), "×Weighted")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func BenchmarkAcquireSeq(b *testing.B) {
	for _, c := range []struct{ size, n, calls int64 }{
		{1, 1, 1}, {2, 1, 1}, {16, 1, 1}, {128, 1, 1}, {2, 2, 1}, {16, 2, 8}, {128, 2, 64}, {2, 1, 2}, {16, 8, 2}, {128, 64, 2},
	} {
		for _, try := range []bool{false, true} {
			seq := func(s weighted) func(int) time.Duration {
				return timed(func() {
					for range c.calls {
						if !try {
							s.Acquire(b.Context(), c.n)
						} else if !s.TryAcquire(c.n) {
							b.Fatal("TryAcquire failed")
						}
					}
					for range c.calls {
						s.Release(c.n)
					}
				})
			}
			b.Run(fmt.Sprintf("try=%t/%d-%d-%d", try, c.size, c.n, c.calls), func(b *testing.B) {
				own, memory := seq(settledSemaphore(b, c.size)), seq(semaphore.NewWeighted(c.size))
				const n = 1000
				var ratios []float64
				for range 11 {
					ratios = append(ratios, float64(own(n/int(c.n*c.calls)+1))/float64(memory(n/int(c.n*c.calls)+1)))
				}
				b.ReportMetric(median(ratios), "×Weighted")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
