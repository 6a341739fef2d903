// Package interlock is Go's sync between processes: locks over files, for the goroutines of all
// the processes of a machine that name the same file.
//
//   - A [FileRWMutex] is like a [sync.RWMutex], and a [sync.Locker].
//   - [Lock], [RLock], [TryLock], [TryRLock] and [Unlock] lock a file that the caller has
//     opened.
//
// The operating system holds the locks. It frees those of a process that ends, however it
// ends. Every wait can end with a [context.Context], and then leaves nothing behind.
// Where the system can, which so far is Linux, a waiter sleeps in the kernel until it is its turn,
// instead of asking again and again.
//
// # Systems
//
// On Linux this package is tested, on ext4, tmpfs and overlayfs, and with a FUSE file system. Known to
// be local are ext4, xfs, btrfs, tmpfs, squashfs, erofs, and what is open for writing on overlayfs. On
// any other file system, NFS among them, more care is taken: calls are made so that one that gets no answer
// holds up only its caller, and that only until the caller's context ends; and readers are kept from
// starving writers by a file of its own, named like the lock file with ".gate" appended.
//
// For macOS, FreeBSD, OpenBSD, NetBSD, DragonFly BSD, illumos, Solaris and Windows it is written,
// compiled, and has not been run yet. There a waiter tries again after growing
// pauses ([WithPollInterval]). On AIX and all other systems, making a lock fails with
// [errors.ErrUnsupported].
//
// # Other programs
//
// On Unix the locks are those of flock(2) on the whole file. Whatever uses flock(2), such as
// flock(1), takes part in the same lock. Locks by fcntl(2) or lockf(3) are others; they cannot be used
// on the same file in the same process, since they end when any descriptor of the file is closed.
//
// File locks end at the machine, or at the NFS server. A mount of the same directory by 9p,
// VirtioFS or a FUSE file system may well be another world that excludes nobody here.
package interlock
