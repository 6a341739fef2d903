// Package closewatch wakes a goroutine when another process closes a file.
//
// A process that is killed closes its files, and so a goroutine that waits for
// another process need not poll. The package uses inotify(7), which only Linux
// has. On other systems, [Available] is false, and [New], [NewWaker], and
// [OpenSpare] return an error that matches [errors.ErrUnsupported].
//
// There are limits. The event of a close arrives before the kernel releases the
// locks of the process that closed the file. Nothing arrives from another
// machine that has closed a file on a network file system. So a program must
// look again after a while, event or not.
package closewatch
