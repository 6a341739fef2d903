//go:build !unix

package atpath

const nonBlocking = 0

func isStale(error) bool { return false }

func isLeased(error) bool { return false }
