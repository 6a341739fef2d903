package pidfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// openFlags: what is at the path by then is opened, and not what a link leads to.
const openFlags = windows.FILE_FLAG_OPEN_REPARSE_POINT

// gone reports whether there is no process with this ID.
func gone(pid int) bool {
	p, err := os.FindProcess(pid)
	if err == nil {
		p.Release()
	}
	return errors.Is(err, windows.ERROR_INVALID_PARAMETER)
}

// passing reports whether an error of opening a file may soon be another: somebody is removing it. While others
// still have it open, that is ERROR_ACCESS_DENIED, even of asking for what the file is, which hardly
// ever is denied otherwise.
func passing(err error) bool {
	var pathErr *fs.PathError
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) && errors.As(err, &pathErr) {
		_, err = os.Lstat(pathErr.Path)
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}
