//go:build !interlock_bsd

package proclocks

import (
	"io"
	"os"
	"slices"
	"strings"
)

func of(path string) ([]Lock, error) {
	name, err := nameOf(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines, err := linesOf(f, name)
	if err != nil {
		return nil, err
	}
	var locks []Lock
	for _, line := range lines {
		if l, ok := parse(line); ok {
			locks = append(locks, l)
		}
	}
	return locks, nil
}

// linesOf returns the lines of f, which is /proc/locks, about the file with
// that [nameOf].
//
// The kernel produces at most a page of the list for each read(2), and finds
// the next page by the number of its first lock. If a lock comes or goes
// between two reads, the lock at the seam between two pages can appear twice,
// or be missing. So a list that takes several reads is read three times, with
// the seams at other places, and a lock that appears once counts.
func linesOf(f io.ReaderAt, name string) (lines []string, err error) {
	for try := range 3 {
		data, reads, err := readAll(f, 4096-900*try)
		if err != nil {
			return nil, err
		}
		lines = merge(lines, find(data, name))
		if reads <= 1 {
			break
		}
	}
	return lines, nil
}

// readAll reads f from its start, size bytes at a time, and returns how many
// reads found something.
func readAll(f io.ReaderAt, size int) (data string, reads int, err error) {
	var all []byte
	page := make([]byte, size)
	for ; ; reads++ {
		n, err := f.ReadAt(page, int64(len(all)))
		if n == 0 && err != io.EOF {
			return "", 0, err
		}
		if n == 0 {
			return string(all), reads, nil
		}
		all = append(all, page[:n]...)
	}
}

// find returns the lines about the named file, without their numbers. Of equal
// lines that name a process, it returns one.
func find(data, name string) (lines []string) {
	for line := range strings.Lines(data) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), ": ")
		if strings.Contains(line, " "+name+" ") && !(hasPID(line) && slices.Contains(lines, line)) {
			lines = append(lines, line)
		}
	}
	return lines
}

// merge returns the lines of the newer list, and those that name a process and
// are only in the older list. A line without a PID can be of several locks,
// which nothing tells apart. So the older list says nothing about these.
func merge(older, newer []string) []string {
	for _, line := range older {
		if hasPID(line) && !slices.Contains(newer, line) {
			newer = append(newer, line)
		}
	}
	return newer
}

// hasPID reports whether a line of /proc/locks names a process.
func hasPID(line string) bool { return !strings.Contains(line, " -1 ") }
