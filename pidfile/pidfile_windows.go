package pidfile

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// gone reports whether there is no process with this ID.
func gone(pid int) bool {
	p, err := os.FindProcess(pid)
	if err == nil {
		p.Release()
	}
	return errors.Is(err, windows.ERROR_INVALID_PARAMETER)
}

// passing reports whether an error of opening a file may soon be another: somebody is removing it.
func passing(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}
