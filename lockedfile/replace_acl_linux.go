package lockedfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// inheritACL gives f the access control list (acl(5)) of another file, or none
// if that file has none.
func inheritACL(f, from *os.File) error {
	const attr = "system.posix_acl_access"
	acl := make([]byte, 1<<16) // No attribute is larger.
	n := 0
	err := uninterrupted(func() (err error) {
		n, err = unix.Fgetxattr(int(from.Fd()), attr, acl)
		return err
	})
	switch err {
	case nil:
		return uninterrupted(func() error { return unix.Fsetxattr(int(f.Fd()), attr, acl[:n], 0) })
	case unix.ENODATA:
		// The directory may have given f a default list.
		err = uninterrupted(func() error { return unix.Fremovexattr(int(f.Fd()), attr) })
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			return nil
		}
	case unix.EOPNOTSUPP:
		return nil
	}
	return err
}

// uninterrupted repeats call until it is not interrupted by a signal, which can
// happen on a file system in user space.
func uninterrupted(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
