package atpath

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/interlock-go/interlock/internal/paths"
)

// Absolute makes path independent of the working directory. It does not clean
// the path: if dir is a symbolic link, dir/../x is not x.
func Absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	if runtime.GOOS == "windows" {
		// C:x and \x are neither absolute nor relative to the working
		// directory.
		dir, base := filepath.Split(path)
		dir, err := filepath.Abs(dir)
		return strings.TrimSuffix(dir, `\`) + `\` + base, err
	}
	wd, err := paths.Getwd()
	return wd + string(os.PathSeparator) + path, err
}
