// Package longtest tells tests whether to run at full length.
//
// A plain "go test" runs short versions of slow tests and skips the slowest.
// The environment variable INTERLOCK_LONG=1, which "make test" sets, asks for
// all of them.
package longtest

import (
	"os"
	"testing"
)

// Enabled reports whether tests should run at full length: INTERLOCK_LONG is
// set to something other than "" and "0", and the flag -short is not set.
//
// Like [testing.Short], it must not be called before the flags are parsed.
func Enabled() bool {
	if v := os.Getenv("INTERLOCK_LONG"); v == "" || v == "0" {
		return false
	}
	return !testing.Short()
}

// Skip skips t unless tests run at full length.
func Skip(t testing.TB) {
	t.Helper()
	if !Enabled() {
		t.Skip("slow: set INTERLOCK_LONG=1 and do not pass -short to run this test")
	}
}
