//go:build !interlock_bsd

package interlock

import (
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// canWatch: that a file was closed wakes who watches it.
const canWatch = true

// A watcher notes when one of the files it watches is closed, by whomever, or loses its name. To close
// an inotify instance takes many milliseconds, so it is kept.
type watcher struct{ inotify int }

// An alarm wakes one who sleeps by a watcher: each has its own, or one would take what was to wake another.
type alarm struct {
	event int // an eventfd(2)

	mu     sync.Mutex
	closed bool
}

// A bell is a spare open file. To close it wakes who watches the file, sooner than to open one first.
type bell struct{ fd int }

// openFiles is where the files are that this thread has open: proc(5).
var openFiles = "/proc/thread-self/fd/" // but for tests

// newBell opens f once more. Where the right to was given up, there is no bell, and who watches has to look by itself.
func newBell(f *lockFile) (*bell, error) {
	fd := -1
	err := uninterrupted(func() (err error) {
		fd, err = unix.Open(openFiles+strconv.Itoa(f.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err == nil {
		return &bell{fd}, nil
	}
	if err != unix.ENOENT {
		return nil, err
	}
	// Without proc(5), what is at its path, if that is f.
	if err = checkFile(f.path); err == nil {
		fd, err = open(f.path, unix.O_RDONLY, 0)
	}
	if err != nil {
		return nil, err
	}
	if id, err := (handle{fd: fd}).identity(); err != nil || id.dev != f.dev || id.ino != f.ino {
		unix.Close(fd)
		return nil, errStale
	}
	return &bell{fd}, nil
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
	return &watcher{inotify}, nil
}

// add watches the file that is at path now. Its events have the number that is returned.
func (w *watcher) add(path string) (int, error) {
	return unix.InotifyAddWatch(w.inotify, path, unix.IN_DONT_FOLLOW|
		unix.IN_CLOSE|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF)
}

// forget forgets what has been noted, and calls noted for each event with the number of the file. It is for who looks at the
// files afterwards.
func (w *watcher) forget(noted func(file int)) {
	var events [32]unix.InotifyEvent // of files, which have no names
	// While nobody looked, many thousands may have come; but what comes meanwhile must not keep us here.
	for n, reads := len(events), 0; n == len(events) && reads < 1024; reads++ {
		size, _ := unix.Read(w.inotify, unsafe.Slice((*byte)(unsafe.Pointer(&events)), unsafe.Sizeof(events)))
		n = max(size, 0) / unix.SizeofInotifyEvent
		for _, e := range events[:n] {
			noted(int(e.Wd))
		}
	}
}

func (w *watcher) close() { unix.Close(w.inotify) }

func newAlarm() (*alarm, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &alarm{event: event}, nil
}

// wait returns true when w has noted something that has not been forgotten, or a has gone off since wait returned last, and
// false after the timeout.
func (a *alarm) wait(w *watcher, timeout time.Duration) bool {
	ready := []unix.PollFd{{Fd: int32(w.inotify), Events: unix.POLLIN}, {Fd: int32(a.event), Events: unix.POLLIN}}
	ts := unix.NsecToTimespec(int64(timeout))
	n, _ := unix.Ppoll(ready, &ts, nil)
	if ready[1].Revents != 0 {
		var count [8]byte
		unix.Read(a.event, count[:])
	}
	return n > 0
}

// wake makes wait return. It may be called by anybody, even after close.
func (a *alarm) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1} // which is not too much, in any order of bytes
		unix.Write(a.event, one[:])
	}
}

// close closes the alarm, which may be nil.
func (a *alarm) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	unix.Close(a.event)
}
