package lockedfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/interlock-go/interlock/internal/wine"
)

func TestNames(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, valid := range map[string]bool{
		"short":                    true,
		strings.Repeat("long", 63): true,
		".":                        false,
		"":                         false,
		"no/such/dir":              false,
		"short/":                   false,
		"new/":                     false,
		"nul\x00":                  false,
	} {
		err := Write(bg, name, []byte("1"), 0o600)
		if err == nil {
			err = Transform(bg, name, 0, addOne)
		}
		if valid {
			must(t, err)
			wantFile(t, name, "2")
			continue
		}
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != name {
			t.Errorf("%q: %v", name, err)
		}
	}
	wantNoTemp(t, "short")
	if _, err := Read(bg, "new/"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	wantNoFile(t, "new")
}

func TestPathIsResolvedOnce(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"v1", "v2"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, d, "data"), []byte("1"), 0o600))
	}
	t.Chdir(filepath.Join(dir, "v1"))
	must(t, Transform(bg, "data", 0, func([]byte) ([]byte, error) { return []byte("2"), os.Chdir("../v2") }))
	wantFile(t, filepath.Join(dir, "v1/data"), "2")
	wantFile(t, filepath.Join(dir, "v2/data"), "1")

	wine.Skip(t, "has no symbolic links")
	current := filepath.Join(dir, "current")
	symlink(t, "v1", current)
	must(t, Transform(bg, filepath.Join(current, "data"), 0, func([]byte) ([]byte, error) {
		must(t, os.Remove(current))
		return []byte("3"), os.Symlink("v2", current)
	}))
	wantFile(t, filepath.Join(dir, "v1/data"), "3")
	wantFile(t, filepath.Join(dir, "v2/data"), "1")
}
