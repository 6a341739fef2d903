// Package interlock provides locks like those of package [sync] that also work
// between processes. They are built on file locks: goroutines of any process on
// the machine that use the same file share a lock.
//
//   - A [FileRWMutex] is a reader/writer lock, like [sync.RWMutex].
//   - A [FileRMutex] is a reentrant lock. Goroutines that have the same [Owner]
//     share it.
//   - A [FileSemaphore] is a weighted semaphore, like [semaphore.Weighted]. A
//     [Group] is like an [errgroup.Group] whose goroutines hold one unit each.
//   - [Lock], [RLock], [TryLock], [TryRLock] and [Unlock] lock a file that the
//     caller has opened.
//
// The operating system holds the locks, and releases them when a process ends.
// A method that takes a [context.Context] stops waiting when the context is
// done. A canceled wait leaves no lock behind. On Linux, a waiter sleeps in the
// kernel; on other systems it polls.
//
// [Holders] reports which processes hold a lock, and [WithTrace] reports what
// happens to it. [Probe] reports whether locks work in a directory. Package
// lockedfile reads and writes files under their lock, and package pidfile
// allows one instance of a program at a time. Package locktest tests other
// implementations of these locks.
//
// # Systems
//
// The package is tested on Linux, with its usual file systems and NFS, and on
// Windows under Wine. It compiles for macOS, FreeBSD, OpenBSD, NetBSD,
// DragonFly BSD, illumos and Solaris, but its tests have not been run there. On
// all other systems, creating a lock fails with an error that matches
// [errors.ErrUnsupported].
//
// On Linux, the package treats ext4, xfs, btrfs, tmpfs, overlayfs, squashfs and
// erofs as local file systems. On any other file system, such as NFS, a method
// call that gets no answer blocks only its caller, and only until the caller's
// context is done. The functions for open files and package lockedfile may
// block for longer.
//
// # Other programs
//
// On Unix, a lock is a flock(2) lock on the whole file, so flock(1) and other
// programs that use flock(2) take part. Locks acquired by fcntl(2) and lockf(3)
// are separate locks. Do not use them on the same file. On Windows, a lock
// covers one byte beyond the end of any file; see [WithWholeFile].
//
// Locks work within one machine, or among the clients of one NFS server.
//
// The docs directory of the repository has more. The file guarantees.md
// describes limits and rare cases, systems.md lists what was tested where, and
// nfs.md explains what is different on NFS.
//
// [semaphore.Weighted]: https://pkg.go.dev/golang.org/x/sync/semaphore#Weighted
// [errgroup.Group]: https://pkg.go.dev/golang.org/x/sync/errgroup#Group
package interlock
