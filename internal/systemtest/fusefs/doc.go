// Package fusefs is a small file system in user space, fuse(4), for tests. It
// can answer requests for locks wrongly, or not at all, on Linux.
//
// The file system has one directory. It contains an empty file named "lock",
// and files that tests create. Its mode says how it answers requests for locks:
//
//	works    correctly, for the processes that use this mount
//	waits    like works, but never answers a request that has to wait, not
//	         even when that is interrupted
//	silent   never
//	refuses  like works, but refuses a request that would have to wait, and
//	         reports that files have no links
//	unable   like works, but flock(2) fails with EBADF
//	grants   grants every lock to everyone
//	hoards   like works, but keeps locks that are released
//	strict   like works, but readers do not share a lock
package fusefs
