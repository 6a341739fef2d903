//go:build !linux

package interlock

import (
	"errors"
	"time"
)

// canWatch: whoever waits polls.
const canWatch = false

type bell struct{}

func newBell(string) *bell { return nil }
func (*bell) ring()        {}

type watcher struct{}

func newWatcher() (*watcher, error)      { return nil, errors.ErrUnsupported }
func (*watcher) add(string) error        { return errors.ErrUnsupported }
func (*watcher) wait(time.Duration) bool { return false }
func (*watcher) wake()                   {}
func (*watcher) close()                  {}
