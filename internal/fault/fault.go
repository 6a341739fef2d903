// Package fault makes the system calls of a piece of code fail, one at a time.
// Each call fails at each place, with each error that its manual page lists.
// The package needs Linux.
//
// The code under test runs in a process of its own, the child, which runs the
// function [Child]. A seccomp filter in the child stops every system call of
// certain kinds. The parent, which is the test, then decides whether the call
// runs or fails (see seccomp_unotify(2)). So the code under test needs no
// changes, and it does not matter whether its calls go through package os,
// through x/sys/unix or neither.
//
// [Explore] runs each scenario once without failures. Then it runs the scenario
// many times and lets the k-th call of the run fail with the e-th of its
// errors, for every k and every e. During each run, the scenario reports
// mistakes and the child looks for goroutines that stay. After each run, the
// parent looks for locks that are still held and descriptors that are still
// open.
package fault
