package atpath

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/interlock-go/interlock/internal/paths"
)

const separator = string(os.PathSeparator)

// Absolute makes path independent of the working directory. Except on Windows,
// it does not clean the path: if dir is a symbolic link, dir/../x is not x.
func Absolute(path string) (string, error) {
	if path == "" {
		return "", syscall.ENOENT
	}
	if runtime.GOOS == "windows" {
		abs, err := filepath.Abs(path)
		if paths.OfFile(path) != nil { // Abs removes a trailing separator
			abs = strings.TrimSuffix(abs, separator) + separator
		}
		return abs, err
	}
	if filepath.IsAbs(path) {
		return path, nil
	}
	wd, err := paths.Getwd()
	return wd + separator + path, err
}

// Resolve makes path independent of the working directory, and of later changes
// of symbolic links to directories. It leaves alone what it cannot resolve,
// such as a path into another mount namespace (/proc/PID/root).
func Resolve(path string) string {
	abs, err := Absolute(path)
	if err != nil {
		return path
	}
	dir, base := filepath.Split(abs) // filepath.Dir would drop "link/..".
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		if same, _ := paths.Same(dir, resolved); same {
			dir = strings.TrimSuffix(resolved, separator) + separator
		}
	}
	return dir + base
}
