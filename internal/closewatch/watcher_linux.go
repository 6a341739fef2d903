//go:build !interlock_bsd

package closewatch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Available reports whether the system can watch files.
const Available = true

// A Watcher records when one of its files is closed, by any process, or is
// moved or removed. Closing a Watcher takes many milliseconds, and a user can
// have only a few (128 by default). So a program should keep its Watcher open.
type Watcher struct{ inotify int }

// New returns a Watcher of no files.
func New() (*Watcher, error) {
	inotify, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &Watcher{inotify}, nil
}

// Add adds the file that is at path now, and returns the number by which
// [Watcher.Drain] names it. A file that was added before keeps its number. Add
// does not follow a symbolic link at path.
func (w *Watcher) Add(path string) (file int, err error) {
	return unix.InotifyAddWatch(w.inotify, path, unix.IN_DONT_FOLLOW|
		unix.IN_CLOSE|unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DELETE_SELF)
}

// Drain forgets the events that w has recorded, and calls changed with the
// file's number for each of them. Call it before looking at the files: what
// happens afterwards is a new event, which ends the next wait.
func (w *Watcher) Drain(changed func(file int)) {
	var events [32]unix.InotifyEvent // of files, and so without names
	// Many thousands of events may have come since the last call. But new ones
	// must not keep Drain from returning.
	for n, reads := len(events), 0; n == len(events) && reads < 1024; reads++ {
		size, _ := unix.Read(w.inotify, unsafe.Slice((*byte)(unsafe.Pointer(&events)), unsafe.Sizeof(events)))
		n = max(size, 0) / unix.SizeofInotifyEvent
		for _, e := range events[:n] {
			changed(int(e.Wd))
		}
	}
}

// Close closes w. No goroutine may use it at that time or later.
func (w *Watcher) Close() { unix.Close(w.inotify) }
