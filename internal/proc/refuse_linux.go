package proc

import (
	"encoding/binary"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Refuse makes a system call of this process fail with errno from now on. If fd
// is not -1, only calls with that descriptor as their first argument fail. A
// second call of Refuse adds to the first. Refuse uses seccomp(2).
func Refuse(call uint32, errno unix.Errno, fd int) {
	runtime.LockOSThread()
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	unless := func(k uint32, skip int) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: uint8(skip)}
	}
	fail := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}}
	if fd >= 0 {
		arg := uint32(16)                                  // offset of the first argument, which has 64 bits
		if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // big-endian
			arg += 4
		}
		fail = append([]unix.SockFilter{load(arg), unless(uint32(fd), 1)}, fail...)
	}
	filter := append([]unix.SockFilter{load(0), unless(call, len(fail))}, fail...) // at offset 0 is the number of the call
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		panic(e)
	}
}
