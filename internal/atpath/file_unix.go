//go:build unix

package atpath

import (
	"errors"
	"syscall"
)

// nonBlocking lets [OpenRegular] return if a FIFO takes the place of the file.
const nonBlocking = syscall.O_NONBLOCK

// errLink is the error of open(2) for a symbolic link, with O_NOFOLLOW.
const errLink = syscall.ELOOP

func isStale(err error) bool { return errors.Is(err, syscall.ESTALE) }

// isLeased reports whether err, from opening a file with [nonBlocking], says
// that another process, such as a file server, has a lease on the file
// (fcntl(2)). The kernel has asked that process to give it up.
func isLeased(err error) bool { return errors.Is(err, syscall.EWOULDBLOCK) }
