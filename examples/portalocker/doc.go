// Package portalocker shows how to write in Go what Python's portalocker does.
// The examples belong to docs/portalocker.md.
package portalocker
