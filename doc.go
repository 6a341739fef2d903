// Package interlock is Go's sync between processes: locks over files, for the goroutines of all
// the processes of a machine that name the same file.
//
//   - A [FileRWMutex] is like a [sync.RWMutex], and a [sync.Locker].
//   - A [FileRMutex] is reentrant, for those who have the same [Owner].
//   - A [FileSemaphore] is like a [semaphore.Weighted], and a [Group] like an [errgroup.Group].
//   - [Lock], [RLock], [TryLock], [TryRLock] and [Unlock] lock a file that the caller has
//     opened.
//
// Package [github.com/interlock-go/interlock/lockedfile] reads and changes files under their lock, and package
// [github.com/interlock-go/interlock/pidfile] makes a program run only once at a time. [Holders] tells who holds a
// lock, [WithTrace] what happens to it, and [Probe] whether a disk can lock at all. Package
// [github.com/interlock-go/interlock/locktest] tests other implementations of these locks.
//
// The operating system holds the locks. It frees those of a process that ends, however it
// ends. Every wait can end with a [context.Context], and then leaves nothing behind.
// Where the system can, which so far is Linux, a waiter sleeps in the kernel until it is its turn,
// instead of asking again and again.
//
// # Systems
//
// On Linux this package is tested, on ext4, xfs, btrfs, tmpfs, overlayfs, bindfs and other FUSE file systems, on squashfs
// and erofs as far as they can be locked, and across namespaces and chroots; on amd64, 386, arm, arm64 and s390x. Known to
// be local are ext4, xfs, btrfs, tmpfs, squashfs, erofs, and what is open for writing on overlayfs. On
// any other file system, NFS among them, more care is taken: calls are made so that one that gets no answer
// holds up only its caller, and that only until the caller's context ends; readers are kept from
// starving writers by a file of its own, named like the lock file with ".gate" appended; and the first who waits for
// a semaphore's units polls.
//
// Which guarantee holds where, and what was run there, is in the tables of docs/systems.md.
//
// On Windows it is tested under Wine 10, which lacks some of what it is made for, and what therefore has not been
// run yet: that locks keep others from reading and writing the locked bytes, which here are bytes that
// no file reaches; that a locked file is removed or replaced and its name free at once; calls that
// are pending; symbolic links and other reparse points, which are refused. A lock file can be removed
// and renamed while it is open here. One with a name that is about to go, since it was removed and
// others still have it open, or that somebody shares with nobody, is waited for, for half a second. On ReFS, only
// half of the 128 bits that tell files apart are looked at.
//
// For macOS, FreeBSD, OpenBSD, NetBSD, DragonFly BSD, illumos and Solaris it is compiled, and has not been run yet there. The
// code for them has, on Linux (build tag interlock_bsd).
//
// On all systems but Linux a waiter tries again after growing pauses ([WithPollInterval]): of about a
// sixteenth of the time that it has waited, and at most of 20ms, or 250ms in Windows. On AIX and all other systems, making a lock fails with
// [errors.ErrUnsupported].
//
// # Other programs
//
// On Unix the locks are those of flock(2) on the whole file. Whatever uses flock(2), such as
// flock(1), takes part in the same lock. Locks by fcntl(2) or lockf(3) are others. They cannot be used
// on the same file in the same process, since they end when any descriptor of the file is closed; and one of the whole
// file in another process is taken for somebody who waits: on a local file system it includes the gate, the byte at 1<<61.
//
// The slot files of a FileSemaphore have the names of those of BoundedSemaphore in Python's portalocker.
//
// In Windows a lock is on the byte at 1<<62 of the file. cmd/go's lockedfile, which locks all bytes,
// takes part in the same lock. What locks the first byte or the first few, such as gofrs/flock and Python's filelock and
// portalocker, does so with a lock made by [WithWholeFile] only, which is mandatory for the file's contents.
// The gate that stops newcomers while somebody waits is the byte after it, and a semaphore's gate file has its
// locks on the three after that.
//
// File locks end at the machine, or at the NFS server. On NFS v4 a client that is cut off loses its locks when its
// lease expires, and is not told: see docs/nfs.md. For several machines a module etcdlock is planned, with the same
// methods over etcd. A mount of the same directory by 9p,
// VirtioFS or a FUSE file system may well be another world that excludes nobody here.
//
// [semaphore.Weighted]: https://pkg.go.dev/golang.org/x/sync/semaphore#Weighted
// [errgroup.Group]: https://pkg.go.dev/golang.org/x/sync/errgroup#Group
package interlock
