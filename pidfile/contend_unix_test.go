//go:build unix

package pidfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// mark makes a marker: a symbolic link that contains our process ID. It fails
// if another process has it.
func mark(path string) (unmark func() error, err error) {
	own := strconv.Itoa(os.Getpid())
	for os.Symlink(own, path) != nil {
		// A killed process may have left it. If its process is alive,
		// it is either being killed, or there are two holders.
		holder, err := os.Readlink(path)
		if err != nil {
			return nil, errors.New("another process removed its marker while we hold the file")
		}
		if pid, _ := strconv.Atoi(holder); isGone(pid) {
			os.Remove(path)
		}
	}
	return func() error {
		if holder, err := os.Readlink(path); err != nil || holder != own {
			return fmt.Errorf("another process has the marker: %s, %v", holder, err)
		}
		return os.Remove(path)
	}, nil
}
