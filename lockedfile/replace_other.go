//go:build !unix

package lockedfile

import (
	"io/fs"
	"os"
)

// On Windows an open file can be replaced only if every process that has it
// open allows that, and package os does not. The other systems have no file
// locks.
const canReplace = false

func inode(fs.FileInfo) string                   { return "" }
func inherit(_, _ *os.File, _ fs.FileInfo) error { return errInPlace }
func isInPlace(err error) bool                   { return err == errInPlace }
