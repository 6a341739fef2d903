//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/interlock-go/interlock/internal/proc"
)

// sum returns the sum of a value of all processes.
func sum(ps []*proc.Process, of func(pid int) float64) (total float64) {
	for _, p := range ps {
		total += of(p.Pid())
	}
	return total
}

// entries returns the entries of a directory in /proc/PID.
func entries(pid int, dir string) []os.DirEntry {
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", pid, dir))
	if err != nil {
		panic(err)
	}
	return list
}

func threads(pid int) float64     { return float64(len(entries(pid, "task"))) }
func descriptors(pid int) float64 { return float64(len(entries(pid, "fd"))) }

// ofThreads returns the sum of a field over all threads of the process.
func ofThreads(pid int, file string, field func(data string) string) (total float64) {
	for _, task := range entries(pid, "task") {
		// The file is gone if the thread has exited.
		data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/%s", pid, task.Name(), file))
		n, _ := strconv.ParseFloat(field(string(data)), 64)
		total += n
	}
	return total
}

// cpuTime returns the CPU time of the process in nanoseconds.
func cpuTime(pid int) float64 {
	return ofThreads(pid, "schedstat", func(data string) string {
		ns, _, _ := strings.Cut(data, " ")
		return ns
	})
}

// voluntarySwitches returns how often threads of the process went to sleep.
func voluntarySwitches(pid int) float64 {
	return ofThreads(pid, "status", func(data string) string { return valueOf(data, "voluntary_ctxt_switches:") })
}

// privateKB returns the memory that the process shares with no other process.
func privateKB(pid int) (total float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		panic(err)
	}
	for _, key := range []string{"Private_Clean:", "Private_Dirty:"} {
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(valueOf(string(data), key), " kB"), 64)
		total += kb
	}
	return total
}

// valueOf returns the rest of the line that begins with key.
func valueOf(data, key string) string {
	for line := range strings.Lines(data) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
