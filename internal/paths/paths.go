// Package paths is for paths that may lead elsewhere than their text says.
package paths

import (
	"errors"
	"os"
	"syscall"
)

// OfFile returns an error if path can lead to a directory only, since it ends in a separator. Windows ignores that now
// and then.
func OfFile(path string) error {
	if n := len(path); n > 0 && os.IsPathSeparator(path[n-1]) {
		return syscall.EISDIR
	}
	return nil
}

// errElsewhere: something was mounted over the working directory, say.
var errElsewhere = errors.New("the working directory is not at its path")

// Getwd is [os.Getwd], but with an error if that path leads elsewhere.
func Getwd() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return wd, err
	}
	same, err := Same(wd, ".")
	if err == nil && !same {
		err = errElsewhere
	}
	return wd, err
}

// Same reports whether two paths lead to the same file.
func Same(a, b string) (bool, error) {
	infoA, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	infoB, err := os.Stat(b)
	return err == nil && os.SameFile(infoA, infoB), err
}
