package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"
	"unsafe"

	"github.com/interlock-go/interlock/internal/paths"
	"golang.org/x/sys/windows"
)

// This file is tested under Wine. The code for what Wine lacks has not been
// run: locks that keep other processes from reading, pending calls, and names
// that stay until the last handle is closed.

// A sysFile is an open file.
type sysFile struct {
	h          windows.Handle
	id         identity // of a file that this package opened
	fromCaller bool     // opened by the caller of the package
	whole      bool     // the lock covers the contents, too; see WithWholeFile

	writable bool
	local    bool // never set here, nor are the next two
	knownFS  bool
	marked   bool
}

// callerFile returns a sysFile for a file that the caller of the package
// opened.
func callerFile(h uintptr) *sysFile { return &sysFile{h: windows.Handle(h), fromCaller: true} }

// longestPoll is longer than on other systems, because every waiter polls and a
// timer costs more.
const longestPoll = 250 * time.Millisecond

var errNotRegular = errors.New("not a regular file")

// openFile opens the regular file at path, and creates it if create is set.
// Other processes may remove and rename the file while it is open.
func openFile(path string, create bool, perm fs.FileMode) (*sysFile, error) {
	if err := paths.OfFile(path); err != nil {
		return nil, err
	}
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	f := new(sysFile)
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
		f.h, err = windows.CreateFile(name, windows.GENERIC_READ|windows.GENERIC_WRITE, share, nil, disposition, attrs, 0)
		f.writable = err == nil
		if err == windows.ERROR_ACCESS_DENIED {
			var readErr error
			f.h, readErr = windows.CreateFile(name, windows.GENERIC_READ, share, nil, windows.OPEN_EXISTING, attrs, 0)
			if readErr == nil {
				err = nil
			}
		}
		if err == nil {
			break
		}
		if !passing(err, path) || time.Since(begin) > openPatience {
			if notRegular := checkFile(path); notRegular != nil { // opening a directory is "access denied"
				err = notRegular
			}
			return nil, err
		}
	}
	var info windows.ByHandleFileInformation
	kind, err := windows.GetFileType(f.h)
	if err == nil && kind == windows.FILE_TYPE_DISK {
		err = windows.GetFileInformationByHandle(f.h, &info)
	}
	if err == nil && (kind != windows.FILE_TYPE_DISK || info.FileAttributes&(windows.FILE_ATTRIBUTE_REPARSE_POINT|windows.FILE_ATTRIBUTE_DIRECTORY) != 0) {
		err = errNotRegular
	}
	if err != nil {
		f.close()
		return nil, err
	}
	f.id = identify(&info)
	return f, nil
}

// openPatience is how long openFile waits while a passing condition keeps it
// from opening a file.
const openPatience = 500 * time.Millisecond

// passing reports whether err, from opening the file at path, may go away soon.
// There are two reasons. A virus scanner may have the file open without sharing
// it. Or the file was removed, and its name remains until the last handle is
// closed. In that case, even asking for the file's attributes fails with
// ERROR_ACCESS_DENIED, which hardly ever happens otherwise.
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

// classify does nothing: no file system is known to be local here.
func (f *sysFile) classify() {}

func (f *sysFile) dup() (*sysFile, error) { return nil, errors.ErrUnsupported }

// readStart reads the beginning of the file.
func (f *sysFile) readStart(buf []byte) (int, error) {
	var n uint32
	err := windows.ReadFile(f.h, buf, &n, new(windows.Overlapped))
	if err == windows.ERROR_HANDLE_EOF {
		err = nil
	}
	return int(n), err
}

// writeStart writes the beginning of the file.
func (f *sysFile) writeStart(data []byte) error {
	var n uint32
	err := windows.WriteFile(f.h, data, &n, new(windows.Overlapped))
	if err == nil && int(n) < len(data) {
		err = windows.ERROR_DISK_FULL
	}
	return err
}

// leased reports false: Windows has no leases.
func leased(error) bool { return false }

// checkFile returns an error if anything other than a regular file is at path.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return errNotRegular
	}
	return nil
}

// close closes the handle, which releases its locks.
func (f *sysFile) close() { windows.CloseHandle(f.h) }

// identity returns the identity that the file had when it was opened. It does
// not tell whether the file has been removed or changed since.
func (f *sysFile) identity() (identity, error) { return f.id, nil }

// descriptor returns -1: handles are not file descriptors.
func (f *sysFile) descriptor() int { return -1 }

// isFile reports whether id is the identity of the file.
func (f *sysFile) isFile(id identity) bool { return f.id.sameFile(id) }

// device returns a number that tells file systems apart.
func (f *sysFile) device() uint64 { return f.id.dev }

// number returns the index of the file.
func (f *sysFile) number() uint64 { return f.id.ino }

// removing reports whether the file has been removed but keeps its name until
// the last handle is closed. Until then, the path cannot be opened, not even to
// see which file is there.
func (f *sysFile) removing() bool {
	var info struct { // FILE_STANDARD_INFO
		allocationSize, endOfFile int64
		numberOfLinks             uint32
		deletePending, directory  bool
	}
	err := windows.GetFileInformationByHandleEx(f.h, windows.FileStandardInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	return err == nil && info.deletePending
}

// identify uses the 64-bit index of the file. On ReFS, the index has 128 bits,
// and these are a part of it.
func identify(info *windows.ByHandleFileInformation) identity {
	return identity{
		dev:   uint64(info.VolumeSerialNumber),
		ino:   uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		links: uint64(info.NumberOfLinks),
	}
}

// pathIdentity returns the identity of the file that is at path now.
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

// Locks on Windows are mandatory: other handles cannot read or write a locked
// byte. So the lock of a file is on lockByte, which is beyond the end of any
// file. Byte locks are on the bytes after it. A lock of the whole file includes
// lockByte, but not the bytes after it.
const (
	lockByte = 1 << 62

	byteLocks = true
	farByte   = lockByte + 1

	// locksStack says that a second lock on a handle is added to the first
	// one, instead of replacing it.
	locksStack = true
)

// A span is n bytes of a file.
type span struct{ offset, n uint64 }

func (f *sysFile) lockSpan() span {
	if f.whole {
		return span{0, lockByte + 1}
	}
	return span{lockByte, 1}
}

func byteSpan(at int64) span { return span{uint64(at), 1} }

// lockWhole makes the lock include the contents of the file.
func (f *sysFile) lockWhole() { f.whole = true }

func overlappedAt(offset uint64) *windows.Overlapped {
	return &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
}

func (f *sysFile) trySpan(s span, m mode) error {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if m == exclusive {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	at := overlappedAt(s.offset)
	if !f.fromCaller {
		return f.lockError(windows.LockFileEx(f.h, flags, 0, uint32(s.n), uint32(s.n>>32), at))
	}
	// The file may have been opened for overlapped calls. The low bit of
	// the event keeps the result from the Go runtime, which did not make
	// the call.
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return err
	}
	defer windows.CloseHandle(event)
	at.HEvent = event | 1
	var pinner runtime.Pinner
	pinner.Pin(at)
	defer pinner.Unpin()
	err = windows.LockFileEx(f.h, flags, 0, uint32(s.n), uint32(s.n>>32), at)
	if err == windows.ERROR_IO_PENDING { // under way, but not waiting for the lock
		var n uint32
		err = windows.GetOverlappedResult(f.h, at, &n, true)
	}
	return f.lockError(err)
}

func (f *sysFile) unlockSpan(s span) error {
	return windows.UnlockFileEx(f.h, 0, uint32(s.n), uint32(s.n>>32), overlappedAt(s.offset))
}

// lockError translates an error from a lock call.
func (f *sysFile) lockError(err error) error {
	switch err {
	case windows.ERROR_LOCK_VIOLATION:
		return ErrLocked
	case windows.ERROR_INVALID_FUNCTION: // a file system without locks
		return fmt.Errorf("cannot be locked: %w: %w", errors.ErrUnsupported, err)
	}
	return err
}

// tryLock locks the file. ErrLocked means that it is held.
func (f *sysFile) tryLock(m mode) error {
	if f.fromCaller { // a second lock would not replace the first, as it does on other systems
		if err := f.unlock(); err != nil {
			return f.lockError(err)
		}
	}
	return f.trySpan(f.lockSpan(), m)
}

// unlock also succeeds if f is not locked, as on other systems.
func (f *sysFile) unlock() error {
	err := f.unlockSpan(f.lockSpan())
	if err == windows.ERROR_NOT_LOCKED || err == windows.ERROR_LOCK_VIOLATION { // Wine returns the latter
		err = nil
	}
	return err
}

func (f *sysFile) tryLockUnchanged(mode, int64) bool { return false }
func (f *sysFile) tryLockNamed(mode, []byte) bool    { return false }
func (f *sysFile) isNamed([]byte) bool               { return false }
func (f *sysFile) unlockRaw() bool                   { return false }

func (f *sysFile) waitLock(context.Context, mode, func()) (abandoned bool, err error) {
	return false, errCannotWait
}

// bytesApart reports whether byte locks of the file and its lock do not see
// each other.
func (f *sysFile) bytesApart() bool { return true }

func (f *sysFile) remembersAbsence() bool { return false }

// tryByte locks a byte. ErrLocked means that it is held.
func (f *sysFile) tryByte(at int64, m mode) error { return f.trySpan(byteSpan(at), m) }

func (f *sysFile) waitByte(context.Context, int64, mode, func()) (abandoned bool, err error) {
	return false, errCannotWait
}

func (f *sysFile) unlockByte(at int64) error { return f.unlockSpan(byteSpan(at)) }

// byteTaken cannot tell, so known is false. The caller finds out by trying.
func (f *sysFile) byteTaken(int64, mode) (taken, known bool) { return false, false }

// tooManyOpen reports whether err says that there are too many open files.
func tooManyOpen(err error) bool { return errors.Is(err, windows.ERROR_TOO_MANY_OPEN_FILES) }
