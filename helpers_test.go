package interlock

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"github.com/interlock-go/interlock/internal/wine"
)

// These are short names for helpers that tests of several packages use.
var (
	must        = kit.Must
	start       = kit.Start
	finish      = kit.Finish
	pending     = kit.Pending
	waitFor     = kit.WaitFor
	hammer      = kit.Hammer
	tempDir     = kit.TempDir
	startServer = kit.StartServer
)

const (
	patience = kit.Patience
	moment   = kit.Moment
)

// rounds returns how often a test repeats a race: a third of n, or n at full
// length.
func rounds(n int) int {
	if longtest.Enabled() {
		return n
	}
	return n / 3
}

// symlink makes a symbolic link. On Windows that takes a privilege.
func symlink(t testing.TB, target, path string) {
	t.Helper()
	wine.Skip(t, "has no symbolic links")
	err := os.Symlink(target, path)
	if runtime.GOOS == "windows" && err != nil {
		t.Skip(err)
	}
	must(t, err)
}

// remove removes a file that may be open, so that its name is free at once. On
// Windows [os.Remove] may leave the name until the file is closed. Under Wine
// every call leaves the name of a locked file, so there the file is only
// renamed.
func remove(t testing.TB, path string) {
	t.Helper()
	if wine.Here() {
		rename(t, path, path+".removed")
		return
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	must(t, err)
	defer root.Close()
	must(t, root.Remove(filepath.Base(path)))
}

// rename renames a file that may be open, and replaces a file that may be open.
func rename(t testing.TB, from, to string) {
	t.Helper()
	if runtime.GOOS == "windows" { // os.Rename does not replace an open file
		if _, err := os.Lstat(to); err == nil {
			remove(t, to)
		}
	}
	must(t, os.Rename(from, to))
}
