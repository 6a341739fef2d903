package lockedfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFileSystem waits until the disk has the whole file system that f is on.
func syncFileSystem(f *os.File) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}
