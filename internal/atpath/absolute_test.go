package atpath

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
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
