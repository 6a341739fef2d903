package lockedfile

import "os"

// flush waits until the disk has what was written to f. With [WithoutSync] it
// only asks for the errors that a network file system reports when a descriptor
// is closed (close(2)).
func (r *request) flush(f *os.File) error {
	if r.sync {
		return f.Sync()
	}
	return closeCopy(f)
}
