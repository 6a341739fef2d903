package fault

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// calls are the system calls that can be made to fail, by number. Of fcntl(2)
// and flock(2), only the commands that detail knows can fail.
//
// A scenario that makes one of the [unlistedCalls] is reported as a mistake.
// All other calls run as usual:
//
//   - gettid(2), getpid(2) and similar calls cannot fail.
//   - rt_sigprocmask(2) and rt_sigaction(2) fail only for invalid arguments.
//     The Go runtime makes the same calls and does not expect them to fail.
//   - futex(2), epoll_wait(2), mmap(2), clone(2) and nanosleep(2) are calls of
//     the Go runtime.
//   - getdents64(2) is the fallback of package os when getcwd(2) fails.
//   - The packages under test do not fork and do not run programs.
//
// The child runs with asyncpreemptoff, so that the Go runtime does not call
// tgkill(2).
var calls = map[int32]*call{
	unix.SYS_OPENAT: {name: "openat", target: atPath, errnos: func(a args) []unix.Errno {
		list := []unix.Errno{
			unix.EACCES, unix.EBUSY, unix.EFAULT, unix.EFBIG, unix.EOVERFLOW, unix.EINTR, unix.EINVAL, unix.EISDIR, unix.ELOOP, unix.EMFILE,
			unix.ENAMETOOLONG, unix.ENFILE, unix.ENODEV, unix.ENXIO, unix.ENOENT, unix.ENOMEM, unix.ENOTDIR, unix.EPERM, unix.EROFS,
			unix.ETXTBSY, unix.EWOULDBLOCK, unix.EIO, unix.ESTALE,
		}
		if a[2]&unix.O_CREAT != 0 {
			list = append(list, unix.EDQUOT, unix.ENOSPC)
		}
		if a[2]&unix.O_EXCL != 0 {
			list = append(list, unix.EEXIST)
		}
		return list
	}, detail: func(a args) string {
		s := [...]string{"O_RDONLY", "O_WRONLY", "O_RDWR", ""}[a[2]&unix.O_ACCMODE]
		for _, f := range []struct {
			bit  uint64
			name string
		}{{unix.O_CREAT, "O_CREAT"}, {unix.O_EXCL, "O_EXCL"}, {unix.O_PATH, "O_PATH"}, {unix.O_APPEND, "O_APPEND"}} {
			if a[2]&f.bit != 0 {
				s += "|" + f.name
			}
		}
		return s
	}},
	unix.SYS_NEWFSTATAT: {name: "newfstatat", target: atPath, errnos: list(statErrnos)},
	unix.SYS_STATX:      {name: "statx", target: atPath, errnos: list(statErrnos)},
	unix.SYS_FSTAT:      {name: "fstat", target: descriptor(0), errnos: list(statErrnos)},
	unix.SYS_READLINKAT: {name: "readlinkat", target: atPath, errnos: list(pathErrnos, unix.EINVAL, unix.EBADF)},
	unix.SYS_GETCWD:     {name: "getcwd", target: noTarget, errnos: list(nil, unix.EACCES, unix.EFAULT, unix.EINVAL, unix.ENAMETOOLONG, unix.ENOENT, unix.ENOMEM, unix.ERANGE)},
	unix.SYS_FSTATFS:    {name: "fstatfs", target: descriptor(0), errnos: list(nil, unix.EBADF, unix.EFAULT, unix.EINTR, unix.EIO, unix.ENOMEM, unix.ENOSYS, unix.EOVERFLOW)},

	unix.SYS_FLOCK: {name: "flock", target: descriptor(0), errnos: func(a args) []unix.Errno {
		list := []unix.Errno{unix.EBADF, unix.EINTR, unix.EINVAL, unix.ENOLCK, unix.EIO, unix.ENOSYS, unix.EOPNOTSUPP, unix.ESTALE}
		if a[1]&unix.LOCK_UN == 0 {
			list = append(list, unix.EWOULDBLOCK, unix.EACCES, unix.EDEADLK)
		}
		return list
	}, detail: func(a args) string {
		s := map[uint64]string{unix.LOCK_SH: "LOCK_SH", unix.LOCK_EX: "LOCK_EX", unix.LOCK_UN: "LOCK_UN"}[a[1]&^unix.LOCK_NB]
		if a[1]&unix.LOCK_NB != 0 {
			s += "|LOCK_NB"
		}
		return s
	}, waits: func(a args) bool { return a[1]&(unix.LOCK_NB|unix.LOCK_UN) == 0 }},
	unix.SYS_FCNTL: {name: "fcntl", target: descriptor(0), errnos: func(a args) []unix.Errno {
		switch a[1] {
		case unix.F_DUPFD_CLOEXEC:
			return []unix.Errno{unix.EBADF, unix.EINVAL, unix.EMFILE}
		case unix.F_GETFL, unix.F_SETFL, unix.F_SETFD:
			return []unix.Errno{unix.EBADF, unix.EPERM}
		}
		list := []unix.Errno{unix.EBADF, unix.EFAULT, unix.EINTR, unix.EINVAL, unix.ENOLCK, unix.EIO, unix.EOPNOTSUPP, unix.ESTALE}
		if a[1] != unix.F_OFD_GETLK {
			list = append(list, unix.EAGAIN, unix.EACCES, unix.EDEADLK)
		}
		return list
	}, detail: func(a args) string {
		return map[uint64]string{
			unix.F_OFD_SETLK: "F_OFD_SETLK", unix.F_OFD_SETLKW: "F_OFD_SETLKW", unix.F_OFD_GETLK: "F_OFD_GETLK",
			unix.F_DUPFD_CLOEXEC: "F_DUPFD_CLOEXEC", unix.F_GETFL: "F_GETFL", unix.F_SETFL: "F_SETFL", unix.F_SETFD: "F_SETFD",
		}[a[1]]
	}, waits: func(a args) bool { return a[1] == unix.F_OFD_SETLKW }},
	unix.SYS_DUP:  {name: "dup", target: descriptor(0), errnos: list(nil, unix.EBADF, unix.EBUSY, unix.EINTR, unix.EMFILE)},
	unix.SYS_DUP3: {name: "dup3", target: descriptor(1), errnos: list(nil, unix.EBADF, unix.EBUSY, unix.EINTR, unix.EINVAL, unix.EMFILE)},
	unix.SYS_TGKILL: {name: "tgkill", target: func(s *supervisor, n *notification) (string, bool) {
		return "", n.args[2] == uint64(unix.SIGURG)
	}, errnos: list(nil, unix.EAGAIN, unix.EINVAL, unix.EPERM, unix.ESRCH)},
	unix.SYS_KILL: {name: "kill", target: noTarget, errnos: list(nil, unix.EINVAL, unix.EPERM, unix.ESRCH)},

	unix.SYS_INOTIFY_INIT1:     {name: "inotify_init1", target: noTarget, errnos: list(nil, unix.EINVAL, unix.EMFILE, unix.ENFILE, unix.ENOMEM)},
	unix.SYS_INOTIFY_ADD_WATCH: {name: "inotify_add_watch", target: atPath, errnos: list(pathErrnos, unix.EBADF, unix.EINVAL, unix.ENOSPC)},
	unix.SYS_EVENTFD2:          {name: "eventfd2", target: noTarget, errnos: list(nil, unix.EINVAL, unix.EMFILE, unix.ENFILE, unix.ENODEV, unix.ENOMEM)},
	unix.SYS_PPOLL: {name: "ppoll", target: noTarget, errnos: list(nil, unix.EFAULT, unix.EINTR, unix.EINVAL, unix.ENOMEM),
		waits: func(args) bool { return true }},
	// Package os asks the kernel whether a file that it opens can be polled.
	unix.SYS_EPOLL_CTL: {name: "epoll_ctl", target: descriptor(2), errnos: list(nil, unix.EBADF, unix.EEXIST, unix.EINVAL, unix.ELOOP, unix.ENOENT, unix.ENOMEM, unix.ENOSPC, unix.EPERM)},

	unix.SYS_READ:      {name: "read", target: descriptor(0), errnos: list(readErrnos)},
	unix.SYS_PREAD64:   {name: "pread64", target: descriptor(0), errnos: list(readErrnos, seekErrnos...)},
	unix.SYS_WRITE:     {name: "write", target: descriptor(0), errnos: list(writeErrnos)},
	unix.SYS_PWRITE64:  {name: "pwrite64", target: descriptor(0), errnos: list(writeErrnos, seekErrnos...)},
	unix.SYS_LSEEK:     {name: "lseek", target: descriptor(0), errnos: list(seekErrnos, unix.EBADF, unix.EINVAL)},
	unix.SYS_FSYNC:     {name: "fsync", target: descriptor(0), errnos: list(syncErrnos), pretend: true},
	unix.SYS_FDATASYNC: {name: "fdatasync", target: descriptor(0), errnos: list(syncErrnos), pretend: true},
	unix.SYS_SYNCFS:    {name: "syncfs", target: descriptor(0), errnos: list(syncErrnos), pretend: true},
	unix.SYS_FTRUNCATE: {name: "ftruncate", target: descriptor(0),
		errnos: list(nil, unix.EBADF, unix.EFBIG, unix.EINTR, unix.EINVAL, unix.EIO, unix.EPERM, unix.EROFS, unix.ETXTBSY, unix.ENOSPC)},
	unix.SYS_FCHMOD: {name: "fchmod", target: descriptor(0), errnos: list(changeErrnos), detail: func(a args) string { return fmt.Sprintf("%#o", a[1]) }},
	unix.SYS_FCHOWN: {name: "fchown", target: descriptor(0), errnos: list(changeErrnos)},
	unix.SYS_FGETXATTR: {name: "fgetxattr", target: descriptor(0),
		errnos: list(xattrErrnos, unix.E2BIG)},
	unix.SYS_FSETXATTR: {name: "fsetxattr", target: descriptor(0),
		errnos: list(xattrErrnos, unix.EDQUOT, unix.EEXIST, unix.ENOSPC, unix.EPERM, unix.EROFS, unix.EINVAL)},
	unix.SYS_FREMOVEXATTR: {name: "fremovexattr", target: descriptor(0), errnos: list(xattrErrnos, unix.EPERM, unix.EROFS)},

	unix.SYS_UNLINKAT: {name: "unlinkat", target: atPath, errnos: list(pathErrnos, unix.EBUSY, unix.EISDIR, unix.EPERM, unix.EROFS, unix.EBADF, unix.EINVAL)},
	unix.SYS_RENAMEAT: {name: "renameat", target: twoPaths, errnos: list(moveErrnos, unix.EBUSY, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL)},
	unix.SYS_LINKAT:   {name: "linkat", target: twoPaths, errnos: list(moveErrnos)},

	// A close that fails closes the descriptor nevertheless. Here the
	// descriptor number then refers to an unused file until the end of the run.
	unix.SYS_CLOSE: {name: "close", target: descriptor(0), errnos: list(nil, unix.EINTR, unix.EIO, unix.ENOSPC, unix.EDQUOT), closes: true},
}

// unlistedCalls are calls about files, locks and waiting that the packages do
// not make. A package that makes one needs an entry in [calls].
var unlistedCalls = map[int32]string{
	unix.SYS_OPEN: "open", unix.SYS_CREAT: "creat", unix.SYS_OPENAT2: "openat2", unix.SYS_OPEN_BY_HANDLE_AT: "open_by_handle_at",
	unix.SYS_STAT: "stat", unix.SYS_LSTAT: "lstat", unix.SYS_STATX: "statx", unix.SYS_STATFS: "statfs", unix.SYS_READLINK: "readlink",
	unix.SYS_ACCESS: "access", unix.SYS_FACCESSAT: "faccessat", unix.SYS_FACCESSAT2: "faccessat2",
	unix.SYS_DUP2: "dup2", unix.SYS_CLOSE_RANGE: "close_range", unix.SYS_PIPE2: "pipe2", unix.SYS_SOCKET: "socket",
	unix.SYS_LINK: "link", unix.SYS_SYMLINK: "symlink", unix.SYS_SYMLINKAT: "symlinkat", unix.SYS_UNLINK: "unlink", unix.SYS_RENAME: "rename",
	unix.SYS_RENAMEAT2: "renameat2", unix.SYS_MKDIR: "mkdir", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_RMDIR: "rmdir", unix.SYS_MKNODAT: "mknodat",
	unix.SYS_CHMOD: "chmod", unix.SYS_FCHMODAT: "fchmodat", unix.SYS_CHOWN: "chown", unix.SYS_LCHOWN: "lchown", unix.SYS_FCHOWNAT: "fchownat",
	unix.SYS_UTIMENSAT: "utimensat", unix.SYS_TRUNCATE: "truncate", unix.SYS_FALLOCATE: "fallocate",
	unix.SYS_GETXATTR: "getxattr", unix.SYS_SETXATTR: "setxattr", unix.SYS_FLISTXATTR: "flistxattr",
	unix.SYS_READV: "readv", unix.SYS_WRITEV: "writev", unix.SYS_PREADV: "preadv", unix.SYS_PWRITEV: "pwritev",
	unix.SYS_SENDFILE: "sendfile", unix.SYS_COPY_FILE_RANGE: "copy_file_range", unix.SYS_SPLICE: "splice", unix.SYS_IO_URING_SETUP: "io_uring_setup",
	unix.SYS_SYNC: "sync", unix.SYS_SYNCFS: "syncfs", unix.SYS_SYNC_FILE_RANGE: "sync_file_range",
	unix.SYS_INOTIFY_INIT: "inotify_init", unix.SYS_INOTIFY_RM_WATCH: "inotify_rm_watch", unix.SYS_EVENTFD: "eventfd", unix.SYS_SIGNALFD4: "signalfd4",
	unix.SYS_TIMERFD_CREATE: "timerfd_create", unix.SYS_PIDFD_OPEN: "pidfd_open",
	unix.SYS_POLL: "poll", unix.SYS_SELECT: "select", unix.SYS_PSELECT6: "pselect6", unix.SYS_TKILL: "tkill",
}

var (
	pathErrnos = []unix.Errno{
		unix.EACCES, unix.EFAULT, unix.EIO, unix.ELOOP, unix.ENAMETOOLONG, unix.ENOENT, unix.ENOMEM, unix.ENOTDIR, unix.ESTALE,
	}
	// EINTR is not in the manual, but file systems in user space return it.
	statErrnos  = append(slices.Clip(pathErrnos), unix.EBADF, unix.EINTR, unix.EINVAL, unix.EOVERFLOW)
	readErrnos  = []unix.Errno{unix.EAGAIN, unix.EBADF, unix.EFAULT, unix.EINTR, unix.EINVAL, unix.EIO, unix.EISDIR, unix.ESTALE}
	writeErrnos = []unix.Errno{
		unix.EAGAIN, unix.EBADF, unix.EDESTADDRREQ, unix.EDQUOT, unix.EFAULT, unix.EFBIG, unix.EINTR, unix.EINVAL, unix.EIO,
		unix.ENOSPC, unix.EPERM, unix.EPIPE, unix.ESTALE,
	}
	seekErrnos   = []unix.Errno{unix.ENXIO, unix.EOVERFLOW, unix.ESPIPE}
	syncErrnos   = []unix.Errno{unix.EBADF, unix.EINTR, unix.EIO, unix.ENOSPC, unix.EROFS, unix.EINVAL, unix.EDQUOT}
	changeErrnos = []unix.Errno{unix.EACCES, unix.EBADF, unix.EIO, unix.EINVAL, unix.ENOMEM, unix.EPERM, unix.EROFS}
	xattrErrnos  = []unix.Errno{unix.ENODATA, unix.ENOTSUP, unix.ERANGE, unix.EBADF, unix.EINTR, unix.EIO, unix.ENOMEM, unix.EACCES}
	moveErrnos   = append(slices.Clip(pathErrnos), unix.EDQUOT, unix.EEXIST, unix.EMLINK, unix.ENOSPC, unix.EPERM, unix.EROFS, unix.EXDEV, unix.EBADF)
)
