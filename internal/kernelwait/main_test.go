package kernelwait

import (
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
	"go.uber.org/goleak"
)

// children are what the test binary does in processes of its own.
var children = map[string]proc.Func{}

func TestMain(m *testing.M) {
	proc.Run(children)
	goleak.VerifyTestMain(m)
}
