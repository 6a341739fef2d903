//go:build race && unix && !aix

package interlock

// inode is the file's number. Of a file of ours it is known: to ask might mean to wait for a file system that does not
// answer, and so to keep no deadline in the very programs that are being tested.
func (h handle) inode() uint64 {
	if h.ino != 0 {
		return h.ino
	}
	id, _ := h.identity()
	return id.ino
}
