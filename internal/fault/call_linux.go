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

// A call is a kind of system call that is made to fail.
type call struct {
	name string
	// target says what the call is about, and whether it is one of the code under test.
	target func(s *supervisor, n *notification) (what string, ours bool)
	errnos func(a args) []unix.Errno // that its manual names, and those of network file systems
	detail func(a args) string       // or nil; "" is for arguments that are not in question
	waits  func(a args) bool         // whether it may sleep, or nil: never
	idle   bool                      // it succeeds without being made
	closes bool
}

func (c *call) describe(what string, a args) string {
	if c.detail != nil {
		what += ", " + c.detail(a)
	}
	return c.name + "(" + what + ")"
}

// list is an errnos function that does not depend on the arguments.
func list(errnos []unix.Errno, more ...unix.Errno) func(args) []unix.Errno {
	errnos = append(slices.Clip(errnos), more...)
	return func(args) []unix.Errno { return errnos }
}

func anything(*supervisor, *notification) (string, bool) { return "", true }

// descriptor is the target of a call with a descriptor as its n-th argument.
func descriptor(n int) func(*supervisor, *notification) (string, bool) {
	return func(s *supervisor, call *notification) (string, bool) { return s.descriptor(int32(call.args[n])) }
}

// atPath is the target of a call whose first two arguments are a directory's descriptor and a path, or, of inotify_add_watch(2),
// a descriptor and a path.
func atPath(s *supervisor, n *notification) (string, bool) {
	path := s.read(n.args[1])
	if path == "" {
		return s.descriptor(int32(n.args[0]))
	}
	return s.place(path)
}

// twoPaths is the target of a call with two paths in place of one, of which the second is where it leads.
func twoPaths(s *supervisor, n *notification) (string, bool) {
	from, ours := s.place(s.read(n.args[1]))
	to, _ := s.place(s.read(n.args[3]))
	return from + ", " + to, ours
}

// descriptor says what is open as fd in the child, and whether a call on it is one of the code under test.
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
	return s.place(link)
}

// place shortens a path, and reports whether it is one of the code under test.
func (s *supervisor) place(path string) (string, bool) {
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
	return path, strings.HasPrefix(s.dir, path+"/") // a directory on the way, whose name may be a link
}

// read returns the string at an address of the child.
func (s *supervisor) read(address uint64) string {
	buf := make([]byte, unix.PathMax)
	n, _ := s.memory.ReadAt(buf, int64(address))
	if n <= 0 { // beyond the end of a mapping
		n, _ = s.memory.ReadAt(buf[:4096-address%4096], int64(address))
	}
	s0, _, _ := strings.Cut(string(buf[:max(n, 0)]), "\x00")
	return s0
}

// descriptors returns what the child has open.
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
