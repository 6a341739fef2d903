// Package paths checks paths that may not lead to the file that their text
// suggests.
package paths

import (
	"errors"
	"os"
	"syscall"
)

// OfFile returns an error if path ends with a separator, so that it can only
// name a directory. Some functions of Windows ignore such a separator.
func OfFile(path string) error {
	if n := len(path); n > 0 && os.IsPathSeparator(path[n-1]) {
		return syscall.EISDIR
	}
	return nil
}

// errMoved is the error of Getwd if, for example, a file system was mounted
// over the working directory.
var errMoved = errors.New("the path of the working directory leads to another directory")

// Getwd is like [os.Getwd], but returns an error if the path does not lead to
// the working directory.
func Getwd() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return wd, err
	}
	same, err := Same(wd, ".")
	if err == nil && !same {
		err = errMoved
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
