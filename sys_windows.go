package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/interlock-go/interlock/internal/paths"
	"golang.org/x/sys/windows"
)

// This file is run under Wine. What Wine does not have has not been run so far: locks that keep
// others from reading, calls that are pending, names that stay until the last handle is closed.

// A handle is an open lock file, or an open gate.
type handle struct {
	h               windows.Handle
	id              identity // of what we opened
	gateAt          uint64   // of a gate: at which byte, if not at gateByte
	writable, local bool
	marked          bool // never here: nothing tells whether the file has been renamed
	foreign         bool // not opened by us
	whole           bool // locked from the first byte on, see WithWholeFile
}

// fileHandle is the handle of a file that the caller of the package opened.
func fileHandle(h uintptr) handle { return handle{h: windows.Handle(h), foreign: true} }

// longestPoll is longer than elsewhere: everybody who waits polls, and a timer costs more.
const longestPoll = 250 * time.Millisecond

var errNotRegular = errors.New("not a regular file")

// openHandle opens the regular file at path. It may be removed and renamed meanwhile.
func openHandle(path string, create bool, perm fs.FileMode) (h handle, err error) {
	if err := paths.OfFile(path); err != nil {
		return h, err
	}
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
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		h.h, err = windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, share, nil, disposition, attrs, 0)
		h.writable = err == nil
		if err == windows.ERROR_ACCESS_DENIED {
			var readErr error
			h.h, readErr = windows.CreateFile(name, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, attrs, 0)
			if readErr == nil {
				err = nil
			}
		}
		if err == nil {
			break
		}
		if !passing(err, path) || time.Since(begin) > openPatience {
			if notRegular := checkFile(path); notRegular != nil { // a directory is a file without access
				err = notRegular
			}
			return h, err
		}
	}
	var info windows.ByHandleFileInformation
	kind, err := windows.GetFileType(h.h)
	if err == nil && kind == windows.FILE_TYPE_DISK {
		err = windows.GetFileInformationByHandle(h.h, &info)
	}
	if err == nil && (kind != windows.FILE_TYPE_DISK || info.FileAttributes&(windows.FILE_ATTRIBUTE_REPARSE_POINT|windows.FILE_ATTRIBUTE_DIRECTORY) != 0) {
		err = errNotRegular
	}
	if err != nil {
		h.close()
	}
	h.id = identify(&info)
	return h, err
}

// openPatience is how long to wait for what keeps a file from being opened and passes.
const openPatience = 500 * time.Millisecond

// passing reports whether an error of opening the file at path may soon be another: a virus scanner or the like
// has it open and shares it with nobody, or it has been removed and the name is there until the
// last handle is closed. In the latter case the error is ERROR_ACCESS_DENIED, even of asking for
// what the file is, which hardly ever is denied otherwise.
func passing(err error, path string) bool {
	switch err {
	case windows.ERROR_SHARING_VIOLATION, windows.ERROR_DELETE_PENDING:
		return true
	case windows.ERROR_ACCESS_DENIED:
		_, err := pathIdentity(path)
		return errors.Is(err, windows.ERROR_ACCESS_DENIED)
	}
	return false
}

func (h *handle) setLocal() {}

func (h handle) dup() (handle, error) { return h, errors.ErrUnsupported }

// readAt and writeAt read and write what the file begins with.
func (h handle) readAt(buf []byte) (int, error) {
	var n uint32
	err := windows.ReadFile(h.h, buf, &n, new(windows.Overlapped))
	if err == windows.ERROR_HANDLE_EOF {
		err = nil
	}
	return int(n), err
}

func (h handle) writeAt(data []byte) error {
	var n uint32
	err := windows.WriteFile(h.h, data, &n, new(windows.Overlapped))
	if err == nil && int(n) < len(data) {
		err = windows.ERROR_DISK_FULL
	}
	return err
}

// leased reports whether err of opening a file says that somebody has a lease on it.
func leased(error) bool { return false }

// checkFile returns an error if there is something at path that is not a regular file.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return errNotRegular
	}
	return nil
}

// close closes the handle, and gives up the locks taken through it.
func (h handle) close() { windows.CloseHandle(h.h) }

func absolute(path string) (string, error) {
	if path == "" {
		return "", syscall.ENOENT
	}
	abs, err := filepath.Abs(path)
	if paths.OfFile(path) != nil { // which Abs takes away
		abs = strings.TrimSuffix(abs, `\`) + `\`
	}
	return abs, err
}

// identity does not tell whether the file was removed or changed since it was opened: look at the path.
func (h handle) identity() (identity, error) { return h.id, nil }

// device tells file systems apart.
func (h handle) device() uint64 { return h.id.dev }

// removing reports whether the file's name is to go, and remains until the last handle is closed. Until then what is at
// the path cannot be opened, not even to see which file it is.
func (h handle) removing() bool {
	var info struct { // FILE_STANDARD_INFO
		allocationSize, endOfFile int64
		numberOfLinks             uint32
		deletePending, directory  bool
	}
	err := windows.GetFileInformationByHandleEx(h.h, windows.FileStandardInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return err == nil && info.deletePending
}

// identify takes the file's 64-bit index. That of a file on ReFS has 128 bits, of which these are a part.
func identify(info *windows.ByHandleFileInformation) identity {
	return identity{
		dev:   uint64(info.VolumeSerialNumber),
		ino:   uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		links: uint64(info.NumberOfLinks),
	}
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
	var info windows.ByHandleFileInformation
	err = windows.GetFileInformationByHandle(h, &info)
	return identify(&info), err
}

// Locks in Windows are mandatory: a locked byte cannot be read through other handles. So it is
// one that no file reaches, and the gate is the one after it. A lock of the whole file includes the former, and
// not the latter.
const lockByte, gateByte = 1 << 62, 1<<62 + 1

// A span is n bytes of a file.
type span struct{ offset, n uint64 }

func (h handle) lockSpan() span {
	if h.whole {
		return span{0, lockByte + 1}
	}
	return span{lockByte, 1}
}

func (h handle) gateSpan() span { return span{max(h.gateAt, gateByte), 1} }

func (h *handle) lockWhole() { h.whole = true }

func byteAt(offset uint64) *windows.Overlapped {
	return &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
}

func (h handle) trySpan(s span, m hold) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if m == exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	at := byteAt(s.offset)
	if !h.foreign {
		return h.lockError(windows.LockFileEx(h.h, flags, 0, uint32(s.n), uint32(s.n>>32), at))
	}
	// The file may have been opened for overlapped calls. The lowest bit keeps the result from
	// the Go runtime, which did not make the call.
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(event)
	at.HEvent = event | 1
	var pinner runtime.Pinner
	pinner.Pin(at)
	defer pinner.Unpin()
	err = windows.LockFileEx(h.h, flags, 0, uint32(s.n), uint32(s.n>>32), at)
	if err == windows.ERROR_IO_PENDING { // on its way, but not waiting for the lock
		var n uint32
		err = windows.GetOverlappedResult(h.h, at, &n, true)
	}
	return h.lockError(err)
}

func (h handle) unlockSpan(s span) error {
	return windows.UnlockFileEx(h.h, 0, uint32(s.n), uint32(s.n>>32), byteAt(s.offset))
}

// lockError says what an error of a lock call means to the caller.
func (handle) lockError(err error) error {
	switch err {
	case windows.ERROR_LOCK_VIOLATION:
		return ErrLocked
	case windows.ERROR_INVALID_FUNCTION: // a file system without locks
		return fmt.Errorf("cannot be locked: %w: %w", errors.ErrUnsupported, err)
	}
	return err
}

func (h handle) tryLock(m hold) error {
	if h.foreign { // a second lock would not replace the first, as it does on other systems
		if err := h.unlock(); err != nil {
			return h.lockError(err)
		}
	}
	return h.trySpan(h.lockSpan(), m)
}

// unlock succeeds also if h is not locked, as on other systems.
func (h handle) unlock() error {
	err := h.unlockSpan(h.lockSpan())
	if err == windows.ERROR_NOT_LOCKED || err == windows.ERROR_LOCK_VIOLATION { // the latter is Wine's
		err = nil
	}
	return err
}

func (*lockFile) acquireKnown(hold, time.Duration) bool       { return false }
func (*lockFile) isNamed() bool                               { return false }
func (h handle) unlockLocal() bool                            { return false }
func (h handle) waitLock(context.Context, hold, func()) error { return errCannotWait }

// The gate is a byte of the lock file.
func (h handle) gateInFile() bool { return true }

func (handle) remembersAbsence() bool { return false }

func unknownFile(error) bool { return false }

func (h *handle) gateFor(handle) {}

func (h handle) tryGate(m hold) error                         { return h.trySpan(h.gateSpan(), m) }
func (h handle) waitGate(context.Context, hold, func()) error { return errCannotWait }
func (h handle) leaveGate() error                             { return h.unlockSpan(h.gateSpan()) }

// roles returns handles for the three locks of a semaphore's gate file h, see semGate: bytes after
// that of a gate.
func (h handle) roles(string, fs.FileMode) (use, waiting, collect handle, err error) {
	use, waiting, collect = h, h, h
	use.gateAt, waiting.gateAt, collect.gateAt = gateByte+1, gateByte+2, gateByte+3
	return use, waiting, collect, nil
}

// closeRole gives up a lock of a semaphore's gate, but for use.
func (h handle) closeRole() { h.leaveGate() }

// shareGate turns an exclusive gate lock to a shared one: of two locks, the exclusive one is
// unlocked first.
func (h handle) shareGate() error {
	err := h.tryGate(shared)
	h.leaveGate()
	return err
}

// gateTaken reports whether somebody else stands at the gate in a mode that excludes m.
func (h handle) gateTaken(m hold) bool { return h.askGate(m) }
