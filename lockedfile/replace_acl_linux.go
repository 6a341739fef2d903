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
	n, err := unix.Fgetxattr(int(from.Fd()), attr, acl)
	switch err {
	case nil:
		return unix.Fsetxattr(int(f.Fd()), attr, acl[:n], 0)
	case unix.ENODATA:
		// The directory may have given f a default list.
		err = unix.Fremovexattr(int(f.Fd()), attr)
		if err == unix.ENODATA || err == unix.EOPNOTSUPP {
			return nil
		}
	case unix.EOPNOTSUPP:
		return nil
	}
	return err
}
