//go:build !windows && (!unix || aix)

package interlock

import (
	"context"
	"errors"
	"io/fs"
	"time"
)

// This file is for systems without flock(2) or an equivalent. There, openFile
// fails, so nothing can be locked.

const longestPoll = 20 * time.Millisecond

type sysFile struct{ writable, local, knownFS, marked bool }

func callerFile(uintptr) *sysFile { return &sysFile{} }

func openFile(string, bool, fs.FileMode) (*sysFile, error) { return nil, errors.ErrUnsupported }

func pathIdentity(string) (identity, error)    { return identity{}, errors.ErrUnsupported }
func checkFile(string) error                   { return nil }
func leased(error) bool                        { return false }
func tooManyOpen(error) bool                   { return false }
func (*sysFile) identity() (identity, error)   { return identity{}, errors.ErrUnsupported }
func (*sysFile) descriptor() int               { return -1 }
func (*sysFile) isFile(identity) bool          { return false }
func (*sysFile) dup() (*sysFile, error)        { return nil, errors.ErrUnsupported }
func (*sysFile) close()                        {}
func (*sysFile) classify()                     {}
func (*sysFile) device() uint64                { return 0 }
func (*sysFile) number() uint64                { return 0 }
func (*sysFile) removing() bool                { return false }
func (*sysFile) remembersAbsence() bool        { return false }
func (*sysFile) readStart([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (*sysFile) writeStart([]byte) error       { return errors.ErrUnsupported }
func (*sysFile) lockError(err error) error     { return err }

func (*sysFile) lockWhole()                        {}
func (*sysFile) tryLock(mode) error                { return errors.ErrUnsupported }
func (*sysFile) tryLockUnchanged(mode, int64) bool { return false }
func (*sysFile) tryLockNamed(mode, []byte) bool    { return false }
func (*sysFile) isNamed([]byte) bool               { return false }
func (*sysFile) unlock() error                     { return errors.ErrUnsupported }
func (*sysFile) unlockRaw() bool                   { return false }

func (*sysFile) waitLock(context.Context, mode, func()) (abandoned bool, err error) {
	return false, errors.ErrUnsupported
}

const (
	byteLocks  = false
	farByte    = 1
	locksStack = false
)

func (*sysFile) bytesApart() bool          { return false }
func (*sysFile) tryByte(int64, mode) error { return errors.ErrUnsupported }
func (*sysFile) unlockByte(int64) error    { return errors.ErrUnsupported }

func (*sysFile) byteTaken(int64, mode) (taken, known bool) { return false, false }

func (*sysFile) waitByte(context.Context, int64, mode, func()) (abandoned bool, err error) {
	return false, errors.ErrUnsupported
}
