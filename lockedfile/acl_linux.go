package lockedfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// inheritACL gives f the access control list (acl(5)) of another file, or none if that has none. Without that, the
// mode would mean something else: with a list, the bits of the group are a mask.
func inheritACL(f, from *os.File) error {
	const attr = "system.posix_acl_access"
	acl := make([]byte, 1<<16) // no attribute is larger
	n, err := unix.Fgetxattr(int(from.Fd()), attr, acl)
	switch err {
	case nil:
		err = unix.Fsetxattr(int(f.Fd()), attr, acl[:n], 0)
	case unix.ENODATA:
		err = unix.Fremovexattr(int(f.Fd()), attr) // which the directory may have given it
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			err = nil
		}
	case unix.EOPNOTSUPP:
		return nil
	}
	return err
}

// syncFileSystem waits until the disk has all of the file system that f is on.
func syncFileSystem(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) }
