//go:build !linux || interlock_bsd

package proclocks

import (
	"errors"
	"testing"
)

func TestUnsupported(t *testing.T) {
	if _, err := Of("file"); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}
