// Package raceedge tells the race detector about file locks.
//
// The kernel excludes two descriptors of one file from each other, also within
// one process, but the race detector cannot see that. So a goroutine that has
// acquired a file lock calls [Acquire], and a goroutine that releases it calls
// [Release] before. All that happened before the Release then happens before
// what follows the Acquire.
//
// Without the race detector, both functions do nothing.
package raceedge
