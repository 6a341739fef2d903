//go:build !unix

package lockedfile

import "os"

// appendFlags are the flags of a file that [Append] adds to. On Windows, a file
// that is open for appending can neither be locked nor truncated.
const appendFlags = os.O_RDWR

// lockable returns flags like flag, with which an open file can be locked.
func lockable(flag int) int {
	if flag&os.O_APPEND != 0 && flag&os.O_WRONLY != 0 {
		flag = flag&^os.O_WRONLY | os.O_RDWR
	}
	return flag
}

func renamed(f *os.File, _ string) *os.File { return f }
