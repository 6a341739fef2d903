//go:build unix

package atpath

import (
	"errors"
	"syscall"
)

// nonBlocking lets [OpenRegular] return if a FIFO takes the place of the file.
const nonBlocking = syscall.O_NONBLOCK

func isStale(err error) bool { return errors.Is(err, syscall.ESTALE) }
