package portalocker_test

import (
	"os"
	"testing"

	"github.com/interlock-go/interlock"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	tmp := interlock.Must(os.MkdirTemp("", "interlock-examples-*"))
	os.Setenv("TMPDIR", tmp)
	os.Setenv("TMP", tmp) // in Windows
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}
