// Package fault makes the system calls of a piece of code fail, one at a time: each that it makes, at
// each place, with each error that the call's manual names. It needs Linux.
//
// The code runs in a process of its own, the child, which [Child] is the function of. A filter there
// (seccomp_unotify(2)) stops every system call of the kinds in question until its parent, the test,
// has said what is to come of it. So the code under test is as it always is, whether it makes its calls
// through package os, through x/sys/unix or by itself.
//
// [Explore] runs each scenario once without failures, and then again and again: the k-th call of the run fails,
// for every k, with the e-th of its errors, for every e. After each run the scenario itself says what
// is wrong, and the parent looks at what no process may leave behind: locks, descriptors, goroutines.
package fault
