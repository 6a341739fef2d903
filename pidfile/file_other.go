//go:build !unix

package pidfile

import "os"

// removeAndRelease unlocks and closes f and then removes it: Windows does not
// remove an open file. For the same reason it does not remove the file of
// another process.
func removeAndRelease(f *os.File, path string) error {
	err := release(f)
	if err == nil {
		os.Remove(path)
	}
	return err
}
