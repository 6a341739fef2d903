//go:build !unix

package lockedfile

import (
	"io/fs"
	"os"
)

// An open file cannot be replaced in Windows, unless everybody has opened it for that, as package
// os does not. On the systems that are neither Windows nor Unix nothing can be locked anyway.
const canReplace = false

const openFlags = 0

// appendFlags are those of a file that [Append] adds to. In Windows, one that is opened for appending can
// neither be locked nor be truncated.
const appendFlags = os.O_RDWR

// lockable returns the flags with which a file can be opened and then locked.
func lockable(flag int) int {
	if flag&os.O_APPEND != 0 && flag&os.O_WRONLY != 0 {
		flag = flag&^os.O_WRONLY | os.O_RDWR
	}
	return flag
}

func inode(fs.FileInfo) string                   { return "" }
func inherit(_, _ *os.File, _ fs.FileInfo) error { return errInPlace }
func irreplaceable(err error) bool               { return err == errInPlace }
func syncDir(*os.File, string) error             { return nil }
func mayFollow(string, fs.FileInfo) error        { return nil }
func closeCopy(*os.File) error                   { return nil }
func named(f *os.File, _ string) *os.File        { return f }
