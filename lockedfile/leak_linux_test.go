package lockedfile

import (
	"os"
	"strings"
	"testing"
)

// TestNoDescriptorIsLeft runs tests in which calls fail or find stale files.
func TestNoDescriptorIsLeft(t *testing.T) {
	TestFailedTransformChangesNothing(t)
	TestWaitersMoveOnToNewFile(t)
	TestFullDiskLeavesOldContents(t)
	dir, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, entry := range dir {
		if name, _ := os.Readlink("/proc/self/fd/" + entry.Name()); strings.Contains(name, os.TempDir()) {
			t.Error("still open:", name)
		}
	}
}
