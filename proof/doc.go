// Package proof tries to break the locks of package interlock. It contains only
// tests:
//
//	go test .                                        a short run of everything, as in CI
//	go test . -run TestLinearizable -proof.time 1h   as long as you like, at random
//
// Several processes use one lock at random and log their calls, with the time
// of one clock. At the same time, the nemesis attacks them. It kills, stops and
// continues processes, lowers their limits on open files, and replaces lock
// files. Some workloads include programs that lock in other ways.
//
// The logs together are the history of the lock. A search then looks for an
// order of the operations in which each takes effect at one instant between its
// call and its return, and in which a correct lock would give the same results.
// If there is no such order, two clients held the lock at once, or a change to
// the guarded value was lost. The same search must find locks that are broken
// on purpose.
package proof
