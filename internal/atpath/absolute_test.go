package atpath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/interlock-go/interlock/internal/wine"
)

func TestAbsolute(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{
		"x":       wd + "/x",
		"dir/../": wd + "/dir/../", // not cleaned: dir may be a symbolic link
		wd:        wd,
	}
	if runtime.GOOS == "windows" {
		drive := filepath.VolumeName(wd)
		paths = map[string]string{
			`x`:            wd + `\x`,
			drive + `x`:    wd + `\x`,
			`\dir\x`:       drive + `\dir\x`,
			`\x`:           drive + `\x`,
			`x\`:           wd + `\x\`,
			drive + `\dir`: drive + `\dir`,
		}
	}
	for path, want := range paths {
		if got, err := Absolute(path); got != want || err != nil {
			t.Errorf("%s: got %s, %v; want %s", path, got, err, want)
		}
	}
}

func TestAbsoluteOfNothingFails(t *testing.T) {
	if path, err := Absolute(""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", path, err)
	}
}

func TestResolve(t *testing.T) {
	wine.Skip(t, "has no symbolic links")
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const sep = string(filepath.Separator)
	root := filepath.VolumeName(dir) + sep
	for link, target := range map[string]string{"link": dir, "root": root} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			if runtime.GOOS == "windows" {
				t.Skip("no right to make symbolic links:", err)
			}
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for path, want := range map[string]string{
		"":                         "",
		"x":                        filepath.Join(dir, "x"),
		filepath.Join("link", "x"): filepath.Join(dir, "x"),
		filepath.Join("root", "x"): root + "x",
		"link":                     filepath.Join(dir, "link"), // the file itself may be a link
		"link" + sep:               dir + sep,
		"missing" + sep + "x":      filepath.Join(dir, "missing", "x"),
	} {
		if got := Resolve(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}
