package lockedfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock/internal/wine"
)

// symlink makes a symbolic link, or skips the test if that is not permitted.
func symlink(t testing.TB, target, link string) {
	t.Helper()
	err := os.Symlink(target, link)
	if runtime.GOOS == "windows" && err != nil {
		t.Skip("needs a privilege:", err)
	}
	must(t, err)
}

func TestSymlinkIsFollowed(t *testing.T) {
	wine.Skip(t, "has no symbolic links")
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	target := filepath.Join(dir, "sub", "data")
	link, first := filepath.Join(dir, "link"), filepath.Join(dir, "sub", "first")
	symlink(t, "sub/first", link)
	symlink(t, "data", first)
	// At first there is no file where it leads.
	must(t, Write(bg, link, []byte("1"), 0o600))
	wantFile(t, target, "1")
	must(t, Transform(bg, link, 0, addOne))
	must(t, Append(bg, link, []byte("0"), 0))
	wantFile(t, target, "20")
	for _, path := range []string{link, first} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Error("replaced the link", err)
		}
	}
}

func TestSymlinkLoopFails(t *testing.T) {
	wine.Skip(t, "has no symbolic links")
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	symlink(t, "two", one)
	symlink(t, "one", two)
	if err := Write(bg, one, nil, 0o600); err == nil {
		t.Error("no error")
	}
}

func TestChangedSymlinkLeavesNoStrayFile(t *testing.T) {
	needReplace(t)
	dir := t.TempDir()
	link, elsewhere := filepath.Join(dir, "link"), filepath.Join(dir, "elsewhere")
	for _, complete := range []bool{true, false} {
		must(t, os.Symlink("elsewhere", link))
		r := newRequest(bg, "write", link, 0o600)
		calls := 0
		f, err := r.open(os.O_RDWR, func(path string) (*file, error) {
			if calls++; calls == 1 {
				must(t, os.Remove(link))
			}
			if !complete { // as on a file system without hard links
				return r.createEmpty(path, os.O_RDWR)
			}
			return r.create(path, os.O_RDWR, []byte("new"))
		})
		must(t, err)
		if f.path != link || calls != 2 {
			t.Errorf("created %s in %d calls", f.path, calls)
		}
		must(t, release(f.File))
		wantNoFile(t, elsewhere)
		must(t, os.Remove(link))
	}
}
