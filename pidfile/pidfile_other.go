//go:build !unix

package pidfile

import (
	"os"

	"github.com/interlock-go/interlock/internal/opened"
)

// removeAndRelease removes f after it is closed: Windows does not remove an open file. It does not
// remove the file of another either, which is open.
func removeAndRelease(f *os.File, path string) error {
	err := opened.Release(f)
	if err == nil {
		os.Remove(path)
	}
	return err
}
