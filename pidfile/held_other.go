//go:build !unix && !windows

package pidfile

func isGone(int) bool { return false }

func isNoLocksLeft(error) bool { return false }
