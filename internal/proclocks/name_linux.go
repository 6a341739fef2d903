//go:build !interlock_bsd

package proclocks

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/interlock-go/interlock/internal/atpath"
	"golang.org/x/sys/unix"
)

// nameOf returns the name of the regular file at path in /proc/locks: the
// device of its file system and its inode. The device is that of the mount. On
// some file systems, such as btrfs, stat(2) returns a different one.
func nameOf(path string) (string, error) {
	// O_PATH, since opening a FIFO or a device can have an effect on it.
	// Besides, closing any other descriptor would release the POSIX locks that
	// this process has on the file. Package os repeats calls that a signal
	// interrupts.
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = atpath.CheckRegular(info.Mode())
	}
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	major, minor, err := mountDevice(f.Fd())
	if err == errNoMount {
		major, minor, err = unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), nil
	}
	return fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino), err
}

var errNoMount = errors.New("interlock: the mount is not in the list of mounts")

// mountDevice returns the device of the mount that fd is on, by its mount ID.
func mountDevice(fd uintptr) (major, minor uint32, err error) {
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
