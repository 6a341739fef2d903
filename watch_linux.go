package interlock

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// canWatch: that a file was closed wakes who watches it.
const canWatch = true

// A watcher waits until one of the files it watches is closed, by whomever, or loses its name, or it is
// woken. To close an inotify instance takes many milliseconds, so it is kept.
type watcher struct {
	inotify int
	event   int // an eventfd(2), to be woken by

	mu     sync.Mutex
	closed bool
}

// A bell is a spare open file. To close it wakes who watches the file, sooner than to open one first.
type bell struct{ fd int }

// newBell opens the file at path. Where it must not be opened any more, there is no bell, and who
// watches has to look by itself.
func newBell(path string) *bell {
	fd, err := open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	return &bell{fd}
}

// ring rings the bell, which may be nil, and uses it up.
func (b *bell) ring() {
	if b != nil {
		unix.Close(b.fd)
	}
}

func newWatcher() (*watcher, error) {
	inotify, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(inotify)
		return nil, err
	}
	return &watcher{inotify: inotify, event: event}, nil
}

// add watches the file that is at path now.
func (w *watcher) add(path string) error {
	_, err := unix.InotifyAddWatch(w.inotify, path, unix.IN_DONT_FOLLOW|
		unix.IN_CLOSE|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF)
	return err
}

// wait returns true when something has happened since it returned last, and false after the timeout.
func (w *watcher) wait(timeout time.Duration) bool {
	ready := []unix.PollFd{{Fd: int32(w.inotify), Events: unix.POLLIN}, {Fd: int32(w.event), Events: unix.POLLIN}}
	ts := unix.NsecToTimespec(int64(timeout))
	n, _ := unix.Ppoll(ready, &ts, nil)
	var buf [4096]byte
	for _, r := range ready {
		if r.Revents != 0 {
			unix.Read(int(r.Fd), buf[:])
		}
	}
	return n > 0
}

// wake makes wait return. It may be called by anybody, even after close.
func (w *watcher) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // which is not too much, in any order of bytes
		unix.Write(w.event, one[:])
	}
}

func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	unix.Close(w.inotify)
	unix.Close(w.event)
}
