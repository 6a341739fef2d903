//go:build !interlock_bsd

package proclocks

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// nameOf returns the name of the regular file at path in /proc/locks: the
// device of its file system and its inode. The device is that of the mount. On
// some file systems, such as btrfs, stat(2) returns a different one.
func nameOf(path string) (string, error) {
	// O_PATH, since opening a FIFO or a device can have an effect on it.
	// Besides, closing any other descriptor would release the POSIX locks that
	// this process has on the file.
	// By package os, which repeats a call that a signal interrupts.
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return "", errors.Unwrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	if err := regular(st.Mode); err != nil {
		return "", err
	}
	major, minor, err := mountDevice(int(f.Fd()))
	if err == errNoMount {
		major, minor, err = unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), nil
	}
	return fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino), err
}

var errNoMount = errors.New("interlock: the mount is not in the list of mounts")

// mountDevice returns the device of the mount that fd is on, by its mount ID.
func mountDevice(fd int) (major, minor uint32, err error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(info), "mnt_id:")
	id, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, 0, err
	}
	// 36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 2 && f[0] == id {
			if n, _ := fmt.Sscanf(f[2], "%d:%d", &major, &minor); n == 2 {
				return major, minor, nil
			}
		}
	}
	return 0, 0, errNoMount
}

// regular returns an error unless mode is that of a regular file.
func regular(mode uint32) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return &notRegularError{"a directory", unix.EISDIR}
	case unix.S_IFIFO:
		return &notRegularError{"a FIFO", unix.EINVAL}
	case unix.S_IFSOCK:
		return &notRegularError{"a socket", unix.EINVAL}
	}
	return &notRegularError{"a device", unix.EINVAL}
}

// A notRegularError says what a file is instead of a regular one. It wraps the
// error of the system that comes closest.
type notRegularError struct {
	what string
	err  unix.Errno
}

func (e *notRegularError) Error() string { return "not a regular file but " + e.what }
func (e *notRegularError) Unwrap() error { return e.err }
