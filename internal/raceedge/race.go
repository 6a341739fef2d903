//go:build race

package raceedge

import "sync/atomic"

// Enabled reports whether the program was built with the race detector. Without
// it, callers need not compute a key.
const Enabled = true

// Keys share a few counters. A shared counter can only hide a race between two
// files. It never makes the detector report one.
var edges [64]atomic.Uint32

func edge(key uint64) *atomic.Uint32 { return &edges[key%uint64(len(edges))] }

// Acquire tells the race detector that the caller has acquired the lock with
// the given key.
func Acquire(key uint64) { edge(key).Load() }

// Release tells the race detector that the caller is about to release the lock
// with the given key.
func Release(key uint64) { edge(key).Add(1) }
