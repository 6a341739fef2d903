// Package gofrsflock shows how to write with package interlock what
// github.com/gofrs/flock does. The examples belong to docs/gofrs-flock.md.
package gofrsflock
