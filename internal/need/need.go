// Package need skips tests of what a system lacks.
package need

import (
	"os"
	"testing"
)

// Skip skips a test because the system lacks something that can be installed
// or permitted. The arguments say what. If the environment variable
// INTERLOCK_NEED is set, as by .ci/run, Skip fails the test instead.
func Skip(t testing.TB, args ...any) {
	t.Helper()
	if os.Getenv("INTERLOCK_NEED") != "" {
		t.Fatal(args...)
	}
	t.Skip(args...)
}
