//go:build !unix

package atpath

import "syscall"

const nonBlocking = 0

var errLink error = syscall.EINVAL

func isStale(error) bool { return false }

func isLeased(error) bool { return false }
