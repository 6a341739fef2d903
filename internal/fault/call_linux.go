package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

type args = [6]uint64

// A call is a kind of system call that can be made to fail.
type call struct {
	name string

	// target returns the object of the call, and whether the code under test
	// made the call.
	target func(s *supervisor, n *notification) (what string, ours bool)

	// errnos returns the errors in the manual page of the call, and those of
	// network file systems.
	errnos func(a args) []unix.Errno

	// detail describes the arguments. It is nil if there is nothing to add. It
	// returns "" if a call with these arguments is not listed.
	detail func(a args) string

	// waits reports whether the call may block. It is nil if it never does.
	waits func(a args) bool

	pretend bool // the call succeeds without running
	closes  bool // the call closes a descriptor
}

func (c *call) describe(what string, a args) string {
	if c.detail != nil {
		what += ", " + c.detail(a)
	}
	return c.name + "(" + what + ")"
}

// list returns an errnos function that does not depend on the arguments.
func list(errnos []unix.Errno, more ...unix.Errno) func(args) []unix.Errno {
	errnos = append(slices.Clip(errnos), more...)
	return func(args) []unix.Errno { return errnos }
}

func noTarget(*supervisor, *notification) (string, bool) { return "", true }

// descriptor returns the target function of a call whose n-th argument is a
// descriptor.
func descriptor(n int) func(*supervisor, *notification) (string, bool) {
	return func(s *supervisor, call *notification) (string, bool) { return s.descriptor(int32(call.args[n])) }
}

// atPath is the target function of a call whose first two arguments are a
// descriptor and a path. The descriptor is one of a directory, or the inotify
// instance of inotify_add_watch(2).
func atPath(s *supervisor, n *notification) (string, bool) {
	path := s.read(n.args[1])
	if path == "" {
		return s.descriptor(int32(n.args[0]))
	}
	return s.shorten(path)
}

// twoPaths is the target function of a call with an old path and a new path.
func twoPaths(s *supervisor, n *notification) (string, bool) {
	from, ours := s.shorten(s.read(n.args[1]))
	to, _ := s.shorten(s.read(n.args[3]))
	return from + ", " + to, ours
}

// descriptor describes the file that is open as fd in the child. It reports
// whether a call on it is one of the code under test.
func (s *supervisor) descriptor(fd int32) (string, bool) {
	if s.initial[fd] {
		return "", false
	}
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", s.pid, fd))
	if err != nil {
		return "", false
	}
	if kind, ok := strings.CutPrefix(link, "anon_inode:"); ok {
		return kind, true
	}
	return s.shorten(link)
}

// shorten shortens a path. It reports whether a call on it is one of the code
// under test.
func (s *supervisor) shorten(path string) (string, bool) {
	switch {
	case path == "", path == "/", path == "/proc/locks", path == "/proc/self/mountinfo":
		return path, true
	case strings.HasPrefix(path, "/proc/"):
		kind := strings.Split(path, "/")
		return path, len(kind) == 4 && kind[3] == "comm" || len(kind) == 5 && kind[3] == "fdinfo" || len(kind) == 4 && (kind[3] == "mountinfo")
	case !filepath.IsAbs(path):
		return path, true
	}
	if rest, ok := strings.CutPrefix(path, s.dir); ok {
		return "." + rest, true
	}
	return path, strings.HasPrefix(s.dir, path+"/") // a parent directory
}

// read returns the string at an address in the child.
func (s *supervisor) read(address uint64) string {
	buf := make([]byte, unix.PathMax)
	n, _ := s.memory.ReadAt(buf, int64(address))
	if n <= 0 { // the buffer extends beyond the end of a mapping
		n, _ = s.memory.ReadAt(buf[:4096-address%4096], int64(address))
	}
	s0, _, _ := strings.Cut(string(buf[:max(n, 0)]), "\x00")
	return s0
}

// descriptors returns the open files of the child.
func (s *supervisor) descriptors() map[int32]string {
	dir := fmt.Sprintf("/proc/%d/fd", s.pid)
	names, _ := os.ReadDir(dir)
	all := make(map[int32]string)
	for _, name := range names {
		fd, err := strconv.Atoi(name.Name())
		link, linkErr := os.Readlink(filepath.Join(dir, name.Name()))
		if err == nil && linkErr == nil {
			all[int32(fd)] = link
		}
	}
	return all
}
