//go:build unix

package opened

import (
	"errors"
	"syscall"
)

func stale(err error) bool { return errors.Is(err, syscall.ESTALE) }
