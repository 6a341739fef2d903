//go:build !unix

package opened

func stale(error) bool { return false }
