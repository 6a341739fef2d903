//go:build !windows

package wine

// Here reports whether the program runs under Wine.
func Here() bool { return false }
