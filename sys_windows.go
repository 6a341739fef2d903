package interlock

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"
)

// Nothing in this file has been run so far, only compiled.

// A handle is an open lock file, or an open gate.
type handle struct {
	h               windows.Handle
	writable, local bool
}

// fileHandle is the handle of a file that the caller of the package opened.
func fileHandle(h uintptr) handle { return handle{h: windows.Handle(h)} }

// openHandle opens the regular file at path. It may be removed and renamed meanwhile.
func openHandle(path string, create bool, perm fs.FileMode) (h handle, err error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return h, err
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	disposition := uint32(windows.OPEN_EXISTING)
	if create {
		disposition = windows.OPEN_ALWAYS
	}
	attrs := uint32(windows.FILE_ATTRIBUTE_NORMAL)
	if create && perm&0o200 == 0 {
		attrs = windows.FILE_ATTRIBUTE_READONLY
	}
	attrs |= windows.FILE_FLAG_OPEN_REPARSE_POINT
	h.h, err = windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, share, nil, disposition, attrs, 0)
	h.writable = err == nil
	if err == windows.ERROR_ACCESS_DENIED {
		var readErr error
		h.h, readErr = windows.CreateFile(name, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, attrs, 0)
		if readErr == nil {
			err = nil
		}
	}
	if err != nil {
		return h, err
	}
	var info windows.ByHandleFileInformation
	kind, err := windows.GetFileType(h.h)
	if err == nil && kind == windows.FILE_TYPE_DISK {
		err = windows.GetFileInformationByHandle(h.h, &info)
	}
	if err == nil && (kind != windows.FILE_TYPE_DISK || info.FileAttributes&(windows.FILE_ATTRIBUTE_REPARSE_POINT|windows.FILE_ATTRIBUTE_DIRECTORY) != 0) {
		err = errors.New("not a regular file")
	}
	if err != nil {
		h.close()
	}
	return h, err
}

func (h *handle) setLocal() {}

func (h handle) dup() (handle, error) { return h, errors.ErrUnsupported }

// close closes the handle, and gives up the locks taken through it.
func (h handle) close() { windows.CloseHandle(h.h) }

func absolute(path string) (string, error) {
	if path == "" {
		return "", syscall.ENOENT
	}
	return filepath.Abs(path)
}

func (h handle) identity() (identity, error) {
	var info windows.ByHandleFileInformation
	err := windows.GetFileInformationByHandle(h.h, &info)
	return identity{
		dev:     uint64(info.VolumeSerialNumber),
		ino:     uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		removed: info.NumberOfLinks == 0,
	}, err
}

// pathIdentity tells which file is at path now.
func pathIdentity(path string) (identity, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return identity{}, err
	}
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	h, err := windows.CreateFile(name, windows.FILE_READ_ATTRIBUTES, share, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return identity{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer windows.CloseHandle(h)
	return handle{h: h}.identity()
}

// Locks in Windows are mandatory: the locked byte cannot be read through other handles. So it is
// one that no file reaches, and the gate is the one after it.
const lockByte, gateByte = 1 << 62, 1<<62 + 1

func byteAt(offset uint64) *windows.Overlapped {
	return &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
}

func (h handle) tryByte(offset uint64, m hold) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if m == exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	return lockError(windows.LockFileEx(h.h, flags, 0, 1, 0, byteAt(offset)))
}

func (h handle) unlockByte(offset uint64) error {
	return windows.UnlockFileEx(h.h, 0, 1, 0, byteAt(offset))
}

// lockError says what an error of a lock call means to the caller.
func lockError(err error) error {
	switch err {
	case windows.ERROR_LOCK_VIOLATION, windows.ERROR_IO_PENDING:
		return ErrLocked
	}
	return err
}

func (h handle) tryLock(m hold) error { return h.tryByte(lockByte, m) }

// unlock succeeds also if h is not locked, as on other systems.
func (h handle) unlock() error {
	err := h.unlockByte(lockByte)
	if err == windows.ERROR_NOT_LOCKED {
		err = nil
	}
	return err
}

func (h handle) tryLockUnchanged(hold, int64) bool            { return false }
func (h handle) unlockLocal() bool                            { return false }
func (h handle) waitLock(context.Context, hold, func()) error { return errCannotWait }

// The gate is a byte of the lock file.
func (h handle) gateInFile() bool { return true }

func (h *handle) gateFor(handle) {}

func (h handle) tryGate(m hold) error                         { return h.tryByte(gateByte, m) }
func (h handle) waitGate(context.Context, hold, func()) error { return errCannotWait }
func (h handle) leaveGate()                                   { h.unlockByte(gateByte) }

// gateTaken reports whether somebody else stands at the gate in a mode that excludes m. For the
// instant of the question we stand there ourselves.
func (h handle) gateTaken(m hold) bool {
	err := h.tryGate(m)
	if err == nil {
		h.leaveGate()
	}
	return err == ErrLocked
}
