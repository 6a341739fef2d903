package fusefs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

// Mount mounts a file system until the test ends. It returns the process that
// serves it, and the path of the file "lock". When the process reads a line, it
// prints "silent" and switches to the mode silent.
//
// The test binary must run [Serve] as the function "fuse". Mount skips the test
// if it cannot mount.
func Mount(t testing.TB, mode string) (*proc.Process, string) {
	t.Helper()
	kit.NeedRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		need.Skip(t, err)
	}
	dir := t.TempDir()
	p := proc.Start("fuse", dir, mode)
	t.Cleanup(func() {
		p.Kill()
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	p.Expect("mounted")
	return p, filepath.Join(dir, "lock")
}
