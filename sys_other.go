//go:build !windows && (!unix || aix)

package interlock

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// Systems without flock(2) or its like: nothing can be opened, so nothing can be locked.

const longestPoll = 20 * time.Millisecond

type handle struct{ writable, local, marked bool }

func fileHandle(uintptr) handle { return handle{} }

func openHandle(string, bool, fs.FileMode) (handle, error) { return handle{}, errors.ErrUnsupported }

func absolute(path string) (string, error)                  { return path, nil }
func pathIdentity(string) (identity, error)                 { return identity{}, errors.ErrUnsupported }
func (handle) identity() (identity, error)                  { return identity{}, errors.ErrUnsupported }
func (handle) dup() (handle, error)                         { return handle{}, errors.ErrUnsupported }
func (handle) close()                                       {}
func (handle) tryLock(hold) error                           { return errors.ErrUnsupported }
func (handle) unlock() error                                { return errors.ErrUnsupported }
func (*lockFile) acquireKnown(hold, time.Duration) bool     { return false }
func (*lockFile) isNamed() bool                             { return false }
func (handle) unlockLocal() bool                            { return false }
func (handle) waitLock(context.Context, hold, func()) error { return errors.ErrUnsupported }

func (*handle) setLocal()       {}
func (*handle) lockWhole()      {}
func (handle) gateInFile() bool { return false }
func (handle) removing() bool   { return false }
func (handle) device() uint64   { return 0 }

func (handle) remembersAbsence() bool { return false }

func unknownFile(error) bool { return false }

func (*handle) gateFor(handle)                              {}
func (handle) tryGate(hold) error                           { return errors.ErrUnsupported }
func (handle) waitGate(context.Context, hold, func()) error { return errors.ErrUnsupported }
func (handle) leaveGate() error                             { return nil }
func (handle) gateTaken(hold) bool                          { return false }

func (handle) roles(string, fs.FileMode) (use, waiting, collect handle, err error) {
	return handle{}, handle{}, handle{}, errors.ErrUnsupported
}
func (handle) closeRole()       {}
func (handle) shareGate() error { return errors.ErrUnsupported }

func (handle) readAt([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (handle) writeAt([]byte) error       { return errors.ErrUnsupported }
func checkFile(string) error              { return nil }
func leased(error) bool                   { return false }

func (handle) lockError(err error) error { return err }
