//go:build !linux || interlock_bsd

package closewatch

import (
	"errors"
	"testing"
)

func TestUnavailable(t *testing.T) {
	_, errWatcher := New()
	_, errWaker := NewWaker()
	_, errSpare := OpenSpare(0, "file")
	for _, err := range []error{errWatcher, errWaker, errSpare} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	}
	if Available {
		t.Error("it is available")
	}
	var noWaker *Waker
	noWaker.Close()
	var noSpare *Spare
	noSpare.Close()
}
