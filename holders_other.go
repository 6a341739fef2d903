//go:build !linux || interlock_bsd

package interlock

import "errors"

func holders(string) ([]Holder, error) { return nil, errors.ErrUnsupported }
