//go:build race

package interlock

// inode is the file's number.
func (h handle) inode() uint64 { return h.id.ino }
