package interlock

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock/internal/wine"
)

// What systems do differently, for tests that are about something else.

// symlink makes a symbolic link. In Windows that takes a privilege.
func symlink(t testing.TB, target, path string) {
	t.Helper()
	wine.Skip(t, "has no symbolic links")
	err := os.Symlink(target, path)
	if runtime.GOOS == "windows" && err != nil {
		t.Skip(err)
	}
	must(t, err)
}

// remove removes a file that may be open, so that its name is free at once: in Windows, [os.Remove] may
// leave the name until the file is closed. Wine does so whatever one asks for, if the file is locked;
// there it is only moved away.
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

// rename renames a file within its directory in the same way.
func rename(t testing.TB, from, to string) {
	t.Helper()
	root, err := os.OpenRoot(filepath.Dir(from))
	must(t, err)
	defer root.Close()
	must(t, root.Rename(filepath.Base(from), filepath.Base(to)))
}
