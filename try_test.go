package interlock

import (
	"sync"
	"testing"
	"time"
)

// Where one asks who waits by standing at the gate for an instant, those who ask must not take each other for
// somebody who waits.
func TestTryBesideTries(t *testing.T) {
	path := lockPath(t)
	reader, writer, m := newMutex(t, path), newMutex(t, path), newMutex(t, path)
	if gate, err := m.file.openGate(true); err == nil { // where it is a file, it is there once somebody has waited
		gate.close()
	}
	reader.RLock()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if writer.TryLock() {
				t.Error("locked beside a reader")
				writer.Unlock()
			}
		}
	})
	tries, refused := 0, 0
	for begin := time.Now(); time.Since(begin) < time.Second; tries++ {
		if m.TryRLock() {
			m.RUnlock()
		} else {
			refused++
		}
	}
	close(stop)
	wg.Wait()
	reader.RUnlock()
	// The other may lose its processor just while it asks, and for long.
	if t.Logf("%d of %d refused", refused, tries); refused > 1+tries/1000 {
		t.Fail()
	}
}
