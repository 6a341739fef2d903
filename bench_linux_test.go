package interlock

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// atMost reports the median of the ratios of what ours and base take, run by turns so that the
// noise of the machine meets both, and fails if it is over the limit three times running.
func atMost(b *testing.B, limit float64, base, ours func(n int) time.Duration) {
	b.Helper()
	const turns, n = 41, 2000
	base(n)
	ours(n)
	var ratio float64
	for try := range 3 {
		var ratios []float64
		for range turns {
			before := base(n)
			own := ours(n)
			ratios = append(ratios, 2*float64(own)/float64(before+base(n)))
		}
		ratio = median(ratios)
		b.ReportMetric(ratio, "xflock")
		b.ReportMetric(float64(ours(n))/n, "own-ns")
		b.ReportMetric(float64(base(n))/n, "base-ns")
		if ratio <= limit {
			return
		}
		b.Logf("try %d: %.2f times two flock calls", try+1, ratio)
	}
	b.Errorf("%.2f times two flock calls, want at most %.2f", ratio, limit)
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

func barePair(b *testing.B) func(int) time.Duration {
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	fd := int(f.Fd())
	return timed(func() {
		unix.Flock(fd, unix.LOCK_EX)
		unix.Flock(fd, unix.LOCK_UN)
	})
}

func BenchmarkUncontended(b *testing.B) {
	m := Must(NewFileRWMutex(filepath.Join(b.TempDir(), "lock")))
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.Run("Lock", func(b *testing.B) {
		b.ReportAllocs()
		atMost(b, 2.55, barePair(b), timed(func() { m.Lock(); m.Unlock() }))
	})
	b.Run("LockContext", func(b *testing.B) {
		atMost(b, 2.55, barePair(b), timed(func() { m.LockContext(ctx); m.Unlock() }))
	})
	b.Run("RLock", func(b *testing.B) {
		atMost(b, 2.55, barePair(b), timed(func() { m.RLock(); m.RUnlock() }))
	})
	b.Run("RLock-join", func(b *testing.B) {
		m.RLock()
		defer m.RUnlock()
		atMost(b, 0.25, barePair(b), timed(func() { m.RLock(); m.RUnlock() }))
	})
}
