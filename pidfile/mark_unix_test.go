//go:build unix

package pidfile

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// mark makes a marker: a symbolic link that has our PID. It fails if another has it.
func mark(path string) (unmark func() error, err error) {
	own := strconv.Itoa(os.Getpid())
	for os.Symlink(own, path) != nil {
		// Left by one that was killed, and is gone by now or soon; or there are two.
		holder, err := os.Readlink(path)
		if err != nil {
			return nil, errors.New("somebody else was there, and left while we hold it")
		}
		if pid, _ := strconv.Atoi(holder); gone(pid) {
			os.Remove(path)
		}
	}
	return func() error {
		if holder, err := os.Readlink(path); err != nil || holder != own {
			return fmt.Errorf("somebody else is there: %s, %v", holder, err)
		}
		return os.Remove(path)
	}, nil
}
