//go:build !interlock_bsd

package closewatch

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Spare is a spare descriptor of an open file, kept only to be closed.
// Closing it is an event for every [Watcher] of the file. That is faster than
// opening the file only to close it, and it needs no free descriptor.
type Spare struct{ fd int }

// openFiles is the directory of the thread's open files, see proc(5). It
// changes only in tests.
var openFiles = "/proc/thread-self/fd/"

var errReplaced = errors.New("interlock: there is another file at the path")

// OpenSpare opens the open file fd once more, for reading. The process may lack
// the permission by now.
//
// Without /proc, OpenSpare opens the file at path. It fails unless that is a
// regular file, and the same file as fd.
func OpenSpare(fd int, path string) (*Spare, error) {
	spare, err := open(openFiles+strconv.Itoa(fd), 0)
	if err == nil {
		return &Spare{spare}, nil
	}
	if err != unix.ENOENT {
		return nil, err
	}
	// Look before opening: opening a FIFO or a device can have an effect on it.
	var want, got unix.Stat_t
	if err := unix.Fstat(fd, &want); err != nil {
		return nil, err
	}
	if err := unix.Lstat(path, &got); err != nil {
		return nil, err
	}
	if !same(&want, &got) {
		return nil, errReplaced
	}
	spare, err = open(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	// The file may have been replaced since.
	if err = unix.Fstat(spare, &got); err == nil && !same(&want, &got) {
		err = errReplaced
	}
	if err != nil {
		unix.Close(spare)
		return nil, err
	}
	return &Spare{spare}, nil
}

func open(path string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// same reports whether a and b are one regular file.
func same(a, b *unix.Stat_t) bool {
	return a.Dev == b.Dev && a.Ino == b.Ino && b.Mode&unix.S_IFMT == unix.S_IFREG
}

// Close closes s, which may be nil, and wakes the watchers of its file. Call
// it at most once.
func (s *Spare) Close() {
	if s != nil {
		unix.Close(s.fd)
	}
}
