// Package proof tries to break the locks of package interlock. It has tests only:
//
//	go test .                                    a short run of everything, as in CI
//	go test . -run TestLinearizable -proof.time 1h   for as long as one likes, on other seeds each time
//
// Several processes use one lock as they please, and log what they do, with times of one clock. A nemesis
// kills, stops and continues them, takes their descriptors away, replaces the lock's files, and
// lets in programs that lock by other means. Afterwards the history that the logs tell is searched for an order in which each
// operation takes effect at one instant between its call and its return, and which is one of a correct lock.
// If there is none, two held the lock at once, or a change to what it guards was lost. Locks that are broken on purpose are
// found out in the same way, so that it is known to be one.
package proof
