package pidfile

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// isGone reports whether no process has this ID.
func isGone(pid int) bool {
	p, err := os.FindProcess(pid)
	if err == nil {
		p.Release()
	}
	return errors.Is(err, windows.ERROR_INVALID_PARAMETER)
}

func isNoLocksLeft(error) bool { return false }
