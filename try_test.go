package interlock

import (
	"context"
	"sync"
	"testing"
	"time"
)

// On some systems a process can only find out whether another one stands at the
// gate by standing there for an instant. Two that do so must not mistake each
// other for waiters.
func TestTryBesideTries(t *testing.T) {
	path := lockPath(t)
	reader, writer, m := newMutex(t, path), newMutex(t, path), newMutex(t, path)
	if gate, err := m.file.openGate(m.file.file, true); err == nil { // so that a sibling file exists
		gate.file.close()
	}
	reader.RLock()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for ctx.Err() == nil {
			if writer.TryLock() {
				t.Error("a writer holds the lock beside a reader")
				writer.Unlock()
			}
		}
	}()
	tries, refused := 0, 0
	limit := time.Duration(rounds(1000)) * time.Millisecond
	for begin := time.Now(); time.Since(begin) < limit; tries++ {
		if m.TryRLock() {
			m.RUnlock()
		} else {
			refused++
		}
	}
	cancel()
	wg.Wait()
	reader.RUnlock()
	// The writer may lose its processor for long in that instant.
	if t.Logf("%d of %d tries refused", refused, tries); refused > 1+tries/1000 {
		t.Fail()
	}
}
