//go:build !interlock_bsd

package interlock

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// The tests of file systems that do not pass are in internal/systemtest.

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	must(t, Probe(dir))
	if left := Must(os.ReadDir(dir)); len(left) != 0 {
		t.Error("Probe left behind:", left)
	}
	for _, path := range []string{"", filepath.Join(dir, "missing")} {
		wantPathError(t, Probe(path), "probe", path, fs.ErrNotExist)
	}
}

func TestProbeWhileProcessesStart(t *testing.T) {
	dir := t.TempDir()
	whileProcessesStart(t, func() {
		for range 100 {
			must(t, Probe(dir))
		}
	})
}
