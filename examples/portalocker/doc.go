// Package portalocker shows, for everything that Python's portalocker does, how to do it here. The
// examples belong to docs/portalocker.md.
package portalocker
