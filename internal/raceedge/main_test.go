package raceedge

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The race build of the tests has a test of what the detector sees.
func TestAnyKey(t *testing.T) {
	for _, key := range []uint64{0, 1, 63, 64, 1<<64 - 1} {
		Release(key)
		Acquire(key)
	}
}
