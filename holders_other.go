//go:build !linux

package interlock

import "errors"

func holders(string) ([]Holder, error) { return nil, errors.ErrUnsupported }
