//go:build !interlock_bsd

package interlock

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/kernelwait"
	"github.com/interlock-go/interlock/internal/offload"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/proclocks"
	"github.com/interlock-go/interlock/internal/systemtest/fusefs"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

// These are short names for helpers that tests of several packages use.
var (
	needRoot      = kit.NeedRoot
	openDir       = kit.OpenDir
	asNobody      = kit.AsNobody
	mount         = kit.Mount
	noDescriptors = kit.NoDescriptors
	descriptors   = kit.Descriptors
	threadCount   = kit.Threads
	stop          = kit.Stop
)

// The tests can run as if the system could do less, with INTERLOCK_TEST set to:
//
//	remote    no file system is known to be local
//	poll      the kernel cannot wait
//	unmarked  a rename does not show in the ctime
func init() {
	switch os.Getenv("INTERLOCK_TEST") {
	case "remote":
		localFileSystems = nil
	case "poll":
		kernelwait.SetMaxWaits(0)
	case "unmarked":
		renameMarking = nil
	}
	children["fuse"] = fusefs.Serve
}

func needKernelWait(t *testing.T) {
	t.Helper()
	if os.Getenv("INTERLOCK_TEST") == "poll" {
		t.Skip("needs waits in the kernel")
	}
}

// asRemote makes files that are opened from now on count as remote.
func asRemote(t *testing.T) {
	list := localFileSystems
	localFileSystems = nil
	t.Cleanup(func() { localFileSystems = list })
}

// localAndRemote runs a test on files that count as local, unless
// INTERLOCK_TEST says otherwise, and on files that count as remote.
func localAndRemote(t *testing.T, test func(t *testing.T)) {
	t.Run("local", test)
	t.Run("remote", func(t *testing.T) {
		asRemote(t)
		test(t)
	})
}

// mountFUSE mounts a file system of package fusefs, for which calls are
// abandoned in the usual time.
func mountFUSE(t *testing.T, mode string) (*proc.Process, string) {
	t.Helper()
	t.Cleanup(offload.SetGrace(usualGrace))
	return fusefs.Mount(t, mode)
}

// kernelLocks returns the locks of the file in the kernel's list.
func kernelLocks(t *testing.T, path string) []proclocks.Lock {
	t.Helper()
	locks, err := proclocks.Of(path)
	must(t, err)
	return locks
}

// switches returns how often the threads of a process went to sleep.
func switches(t *testing.T, pid string) (n int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	must(t, err)
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				k, _ := strconv.Atoi(strings.TrimSpace(v))
				n += k
			}
		}
	}
	return n
}

func startAcquirer(t testing.TB, name string, size int64) *proc.Process {
	t.Helper()
	return startServer(t, "acquirer", name, fmt.Sprint(size))
}

// waitersOf returns how many goroutines of this process wait for m.
func waitersOf(m *FileRWMutex) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return length(&m.queue)
}

// length returns how many waiters are in the queue.
func length(q *queue) (n int) {
	for w := q.first; w != nil; w = w.next {
		n++
	}
	return n
}

// local reports whether the file of m counts as one on a local file system.
func local(m *FileRWMutex) bool { return m.file.file.local }

// gated reports whether a writer stands at the gate of m.
func gated(m *FileRWMutex) bool {
	o, err := newOptions(nil)
	if err != nil {
		return false
	}
	f, err := openLockFile(m.file.path, m.file.path, o, true)
	if err != nil {
		return false
	}
	defer f.close()
	return taken(f, shared)
}

// waitForWriter waits until a writer stands at the gate of m.
func waitForWriter(t testing.TB, m *FileRWMutex) {
	t.Helper()
	waitFor(t, "a writer stands at the gate", func() bool { return gated(m) })
}

// rlocking locks m for reading on another goroutine.
func rlocking(ctx context.Context, m *FileRWMutex) <-chan error {
	return start(func() error { return m.RLockContext(ctx) })
}

// usualGrace is how long a call may run on after its context is done, for
// users. On a busy machine a call that ends with its context can take longer.
// Only tests of file systems that do not answer expect that calls are abandoned
// in time.
var usualGrace = offload.Grace()

var listing = kit.Listing
