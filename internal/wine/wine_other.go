//go:build !windows

package wine

// Here reports whether this is Wine.
func Here() bool { return false }
