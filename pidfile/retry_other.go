//go:build !windows

package pidfile

func isBeingRemoved(error) bool { return false }
