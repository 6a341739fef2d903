//go:build !interlock_bsd

package interlock

import (
	"context"
	"fmt"
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
)

// What only tests of Linux use.

// queued returns how many goroutines wait for m.
func queued(m *FileRWMutex) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for w := m.first; w != nil; w = w.next {
		n++
	}
	return n
}

// gated reports whether m stands at the gate.
func gated(m *FileRWMutex) bool {
	probe, err := openLockFile(m.abs, 0o600)
	if err != nil {
		return false
	}
	defer probe.close()
	return probe.gateTaken(shared)
}

func methods(m *FileRWMutex) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"LockContext":     m.LockContext,
		"RLockContext":    m.RLockContext,
		"TryLockContext":  m.TryLockContext,
		"TryRLockContext": m.TryRLockContext,
	}
}

func startAcquirer(t testing.TB, name string, size int64) *proc.Process {
	t.Helper()
	return startServer(t, "acquirer", name, fmt.Sprint(size))
}
