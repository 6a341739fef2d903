package lockedfile

import (
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// TestNoDescriptorIsLeft runs tests in which calls fail or find stale files.
func TestNoDescriptorIsLeft(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it closes files
	before := openFiles(t)
	TestFailedTransformChangesNothing(t)
	TestWaitersMoveOnToNewFile(t)
	TestFullDiskLeavesOldContents(t)
	for file := range openFiles(t) {
		if !before[file] {
			t.Error("still open:", file)
		}
	}
}

// openFiles returns the numbers and names of the regular files that are open.
// On a file system that was unmounted, the names are those below its root.
func openFiles(t *testing.T) map[string]bool {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	files := map[string]bool{}
	for _, entry := range entries {
		link := "/proc/self/fd/" + entry.Name()
		name, _ := os.Readlink(link)
		if info, err := os.Stat(link); err == nil && info.Mode().IsRegular() && strings.HasPrefix(name, "/") {
			files[entry.Name()+" "+name] = true
		}
	}
	return files
}
