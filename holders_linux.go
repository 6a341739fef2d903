//go:build !interlock_bsd

package interlock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holders reads /proc/locks, see proc(5):
//
//	1: FLOCK  ADVISORY  WRITE 1234 08:01:4711 0 EOF
//	1: -> FLOCK  ADVISORY  READ 1235 08:01:4711 0 EOF
//
// The second one waits for the first. Who stands behind in the queue waits at the gate, which
// is an OFDLCK, and these have no PID.
func holders(path string) ([]Holder, error) {
	file, err := kernelName(path)
	if err != nil {
		return nil, err
	}
	lines, err := locksOf(file)
	if err != nil {
		return nil, err
	}
	var all []Holder
	for _, line := range lines {
		f := strings.Fields(line)
		waiting := f[0] == "->"
		if waiting {
			f = f[1:]
		}
		if len(f) < 6 || f[0] != "FLOCK" && !(f[0] == "OFDLCK" && waiting && f[5] == strconv.FormatInt(gateByte, 10)) {
			continue
		}
		h := Holder{Shared: f[2] == "READ", Waiting: waiting}
		if pid, err := strconv.Atoi(f[3]); err == nil && pid > 0 {
			h.PID = pid
			comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			h.Command = strings.TrimSuffix(string(comm), "\n")
		}
		all = append(all, h)
	}
	// Holders, the first who waits, and those behind it.
	rank := func(h Holder) int {
		switch {
		case !h.Waiting:
			return 0
		case h.PID != 0:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b Holder) int { return rank(a) - rank(b) })
	return all, nil
}

// locksOf returns the lines of /proc/locks about the file of that kernelName, without their numbers,
// and only one of equal ones that name a process.
//
// The kernel makes up a page of the list at most for each read(2), and finds the next one by the number
// of its first lock: one that comes or goes in between shows the lock at the seam twice, or hides it.
// So if it took more than one read, it is read again with the seams at other places, and
// whoever was seen once is there.
func locksOf(file string) (lines []string, err error) {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for try := range 3 {
		var data []byte
		page := make([]byte, 4096-900*try)
		reads := 0
		for ; ; reads++ {
			n, err := f.ReadAt(page, int64(len(data)))
			if n == 0 && err != io.EOF {
				return nil, err
			}
			if n == 0 {
				break
			}
			data = append(data, page[:n]...)
		}
		var list []string
		for line := range strings.Lines(string(data)) {
			_, line, _ := strings.Cut(strings.TrimSpace(line), ": ")
			if strings.Contains(line, " "+file+" ") && !(named(line) && slices.Contains(list, line)) {
				list = append(list, line)
			}
		}
		for _, line := range lines {
			if named(line) && !slices.Contains(list, line) {
				list = append(list, line)
			}
		}
		if lines = list; reads <= 1 {
			break
		}
	}
	return lines, nil
}

// named tells whether the line of /proc/locks names a process.
func named(line string) bool { return !strings.Contains(line, " -1 ") }

// kernelName returns what /proc/locks calls the file at path: the device of its file system and the
// inode. That is not the device that stat(2) tells, on btrfs for one, but the one of
// the mount.
func kernelName(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := regular(&st); err != nil {
		return "", err
	}
	major, minor, err := mountDevice(fd)
	if err == errNoMount {
		major, minor, err = unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), nil
	}
	return fmt.Sprintf("%02x:%02x:%d", major, minor, st.Ino), err
}

var errNoMount = errors.New("interlock: a mount that is not in the list")

// mountDevice returns the device of the mount that the descriptor is on, by its mount ID.
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
