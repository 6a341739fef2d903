//go:build !linux || interlock_bsd

package interlock

import (
	"errors"
	"time"
)

// canWatch: whoever waits polls.
const canWatch = false

type bell struct{}

func newBell(*lockFile) (*bell, error) { return nil, errors.ErrUnsupported }
func (*bell) ring()                    {}

type watcher struct{}

func newWatcher() (*watcher, error)      { return nil, errors.ErrUnsupported }
func (*watcher) add(string) (int, error) { return 0, errors.ErrUnsupported }
func (*watcher) forget(func(int))        {}
func (*watcher) close()                  {}

type alarm struct{}

func newAlarm() (*alarm, error)                  { return nil, errors.ErrUnsupported }
func (*alarm) wait(*watcher, time.Duration) bool { return false }
func (*alarm) wake()                             {}
func (*alarm) close()                            {}
