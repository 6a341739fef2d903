package migration

import (
	"os"
	"testing"

	"github.com/interlock-go/interlock"
	"go.uber.org/goleak"
)

// Main runs the tests of a package with examples. They get a temporary
// directory of their own, which is removed afterwards. It fails if an example
// leaves a goroutine behind.
func Main(m *testing.M) {
	tmp := interlock.Must(os.MkdirTemp("", "interlock-examples-*"))
	os.Setenv("TMPDIR", tmp)
	os.Setenv("TMP", tmp) // for Windows
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}
