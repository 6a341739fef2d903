//go:build !linux || interlock_bsd

package proclocks

import "errors"

func of(string) ([]Lock, error) { return nil, errors.ErrUnsupported }
