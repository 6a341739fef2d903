package pidfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// isBeingRemoved reports whether err, from opening a file, means that another
// process is removing the file.
//
// While other processes still have the file open, that error is
// ERROR_ACCESS_DENIED. Even os.Lstat gets it then, and hardly ever otherwise.
func isBeingRemoved(err error) bool {
	var pathErr *fs.PathError
	if errors.Is(err, windows.ERROR_ACCESS_DENIED) && errors.As(err, &pathErr) {
		_, err = os.Lstat(pathErr.Path)
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}
