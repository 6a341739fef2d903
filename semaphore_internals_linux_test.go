//go:build !interlock_bsd

package interlock

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// This file gives tests for Linux access to the internals of a FileSemaphore.

// collected returns how many units the leader has so far.
func collected(s *FileSemaphore) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.collected)
}

// openGateOf opens the gate of s once more, as another process does.
func openGateOf(t testing.TB, s *FileSemaphore) *semGate {
	t.Helper()
	g, err := openSemGate(s.abs+".gate.lock", s.size, s.opts, 1000)
	must(t, err)
	t.Cleanup(g.close)
	return g
}

// isLocal reports whether the files of s count as files on a local file system.
func isLocal(s *FileSemaphore) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate.local
}

// becomesQuiet waits until quiet returns nil. On a remote file system, the end
// of a canceled call goes on for a moment after the call has returned.
func becomesQuiet(s *FileSemaphore, units int64) error {
	begin := time.Now()
	for {
		err := quiet(s, units)
		if err == nil || isLocal(s) || time.Since(begin) > patience {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// quiet returns an error unless the callers of s hold this number of units, no
// call is in progress, and each slot is in exactly one place.
func quiet(s *FileSemaphore, units int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case int64(len(s.held)) != units:
		return fmt.Errorf("%d slots are held, want %d", len(s.held), units)
	case !s.queue.empty() || s.asHead || s.freeing != 0:
		return fmt.Errorf("a call is in progress: empty queue %t, head %t, %d releases", s.queue.empty(), s.asHead, s.freeing)
	case len(s.collected)+len(s.untried)+len(s.failed) > 0:
		return fmt.Errorf("%d slots are collected, %d untried, %d failed", len(s.collected), len(s.untried), len(s.failed))
	case s.hasTurn || s.marked:
		return fmt.Errorf("the turn is kept: %t, the mark: %t", s.hasTurn, s.marked)
	case int64(len(s.idle)+len(s.held)) != s.slots:
		return fmt.Errorf("%d slots are idle and %d held, want %d in all", len(s.idle), len(s.held), s.slots)
	}
	paths := make(map[string]bool)
	for _, sl := range slices.Concat(s.idle, s.held) {
		paths[sl.file.path] = true
	}
	if int64(len(paths)) != s.slots {
		return fmt.Errorf("%d slot files, want %d", len(paths), s.slots)
	}
	return nil
}
