package fault

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in seccomp_data: the number of the call, and the lower half of its
// first argument on a little-endian machine.
const (
	offsetNr  = 0
	offsetArg = 16
)

// listen stops the listed and the unlisted calls of all threads of this process
// from now on. Each call then waits for an answer, which the owner of the
// returned descriptor gives (see seccomp_unotify(2)).
func listen() (listener int, err error) {
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	load := func(offset uint32) unix.SockFilter { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset) }
	// unless skips some instructions if the loaded value is not k.
	unless := func(k uint32, skip int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(skip)}
	}
	ask, allow := stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_USER_NOTIF), stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW)

	filter := []unix.SockFilter{
		load(offsetNr),
		unless(unix.SYS_PRCTL, 4), load(offsetArg), unless(controlOption, 1), ask, allow,
	}
	for nr := range calls {
		filter = append(filter, unless(uint32(nr), 1), ask)
	}
	for nr := range unlistedCalls {
		filter = append(filter, unless(uint32(nr), 1), ask)
	}
	filter = append(filter, allow)

	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, err
	}
	// A signal must not interrupt a call that waits for its answer: the call
	// would start again and count twice. Older kernels cannot prevent that.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH)
	for _, flags := range []uintptr{flags | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, flags} {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		if errno == 0 {
			return int(fd), nil
		}
		err = errno
	}
	return -1, fmt.Errorf("seccomp: %w", err)
}

// A notification is a struct seccomp_notif.
type notification struct {
	id    uint64
	tid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// A response is a struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// An addition is a struct seccomp_notif_addfd.
type addition struct {
	id         uint64
	flags      uint32
	src        uint32
	new        uint32
	descrFlags uint32
}

func ioctl(fd int, request uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// unique returns the errors of a list without duplicates.
func unique(list []unix.Errno) []unix.Errno {
	var all []unix.Errno
	for _, e := range list {
		if !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all
}
