package fault

import (
	"encoding/json"
	"strconv"

	"golang.org/x/sys/unix"
)

// An otherProcess is a process that locks the files of a scenario. It is the
// parent of the child. It runs these commands:
//
//	flock path ex|sh        acquire a lock by flock(2)
//	byte path offset ex|sh  acquire an open file description lock on a byte
//	close path              release all locks on the file
//	close-waiting path      release them when the child waits
//
// If the child does not wait, close-waiting releases the locks later, at the
// latest when the run ends.
type otherProcess struct {
	files map[string][]int // descriptors of locked files, by path
}

// do runs a command.
func (o *otherProcess) do(s *supervisor, line string) error {
	var f []string
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		return err
	}
	path := f[1]
	switch f[0] {
	case "close":
		s.flush()
		o.closeFile(path)
		return nil
	case "close-waiting":
		fds := o.files[path]
		delete(o.files, path)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.whenWaiting(func() { closeAll(fds) })
		return nil
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if o.files == nil {
		o.files = make(map[string][]int)
	}
	o.files[path] = append(o.files[path], fd)
	shared := f[len(f)-1] == "sh"
	if f[0] == "flock" {
		how := unix.LOCK_EX
		if shared {
			how = unix.LOCK_SH
		}
		return unix.Flock(fd, how|unix.LOCK_NB)
	}
	offset, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return err
	}
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: offset, Len: 1}
	if shared {
		l.Type = unix.F_RDLCK
	}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
}

func (o *otherProcess) closeFile(path string) {
	closeAll(o.files[path])
	delete(o.files, path)
}

func (o *otherProcess) close() {
	for path := range o.files {
		o.closeFile(path)
	}
}

// closeAll closes descriptors and releases their locks. It unlocks them first,
// because a child process between fork and exec may have copies.
func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Flock(fd, unix.LOCK_UN)
		unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
		unix.Close(fd)
	}
}
