package opened

import (
	"os"
	"path/filepath"
	"testing"
)

// A path with a drive but no root, and one with a root but no drive, are neither absolute nor relative.
func TestAbsolute(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	drive := filepath.VolumeName(wd)
	for path, want := range map[string]string{
		`x`:            wd + `\x`,
		drive + `x`:    wd + `\x`,
		`\dir\x`:       drive + `\dir\x`,
		`\x`:           drive + `\x`,
		`x\`:           wd + `\x\`,
		drive + `\dir`: drive + `\dir`,
	} {
		if got, err := Absolute(path); got != want || err != nil {
			t.Errorf("%s: %s, %v; not %s", path, got, err, want)
		}
	}
}
