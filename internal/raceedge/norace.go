//go:build !race

package raceedge

// Enabled reports whether the program was built with the race detector. Without
// it, callers need not compute a key.
const Enabled = false

// Acquire tells the race detector that the caller has acquired the lock with
// the given key.
func Acquire(key uint64) {}

// Release tells the race detector that the caller is about to release the lock
// with the given key.
func Release(key uint64) {}
