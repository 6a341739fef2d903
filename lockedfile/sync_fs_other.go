//go:build unix && !linux

package lockedfile

import "os"

// syncFileSystem does nothing: the system has no syncfs(2).
func syncFileSystem(*os.File) error { return nil }
