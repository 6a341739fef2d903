//go:build !unix && !windows

package pidfile

const noFollow = 0
