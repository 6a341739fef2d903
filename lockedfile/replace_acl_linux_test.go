package lockedfile

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// acl returns an access control list (acl(5)) that gives rights to the owner
// and to one more user, and none to the owning group.
func acl(uid uint32, rights uint16) []byte {
	const (
		version = 2
		none    = 1<<32 - 1

		userObj, user, groupObj, mask, other = 1, 2, 4, 16, 32
	)
	le := binary.LittleEndian
	b := le.AppendUint32(nil, version)
	for _, entry := range []struct {
		tag, rights uint16
		id          uint32
	}{{userObj, 6, none}, {user, rights, uid}, {groupObj, 0, none}, {mask, rights, none}, {other, 0, none}} {
		b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, entry.tag), entry.rights), entry.id)
	}
	return b
}

// setACL gives the file at path the list of acl, or skips the test.
func setACL(t *testing.T, path string, uid uint32) {
	t.Helper()
	if err := unix.Setxattr(path, aclAccess, acl(uid, 6), 0); err != nil {
		t.Skipf("no access control lists on the file system of %s: %v", path, err)
	}
}

func TestAccessControlListIsKept(t *testing.T) {
	path := newFile(t, "old")
	setACL(t, path, 1000)
	before, err := os.Stat(path)
	must(t, err)
	must(t, Write(bg, path, []byte("new"), 0))
	buf := make([]byte, 1000)
	n, err := unix.Getxattr(path, aclAccess, buf)
	must(t, err)
	if !bytes.Equal(buf[:n], acl(1000, 6)) {
		t.Error(buf[:n])
	}
	after, err := os.Stat(path)
	must(t, err)
	if before.Mode() != after.Mode() || os.SameFile(before, after) {
		t.Error(before.Mode(), after.Mode())
	}
}

func TestDefaultAccessControlListIsNotAdded(t *testing.T) {
	path := newFile(t, "old")
	setACL(t, path, 1000) // or skip
	must(t, unix.Setxattr(filepath.Dir(path), aclDefault, acl(1234, 6), 0))
	path = filepath.Join(filepath.Dir(path), "plain")
	must(t, os.WriteFile(path, nil, 0o660))
	must(t, unix.Removexattr(path, aclAccess))
	must(t, os.Chmod(path, 0o660))
	must(t, Write(bg, path, []byte("new"), 0))
	if _, err := unix.Getxattr(path, aclAccess, make([]byte, 1000)); err != unix.ENODATA {
		t.Error(err)
	}
}

// TestNewFileIsNeverOpenToExcludedGroup replaces a file that its access control
// list closes to the group. The mode alone would open it to the group.
func TestNewFileIsNeverOpenToExcludedGroup(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/tmp", "lockedfile-test-*") // which all users can reach
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "data")
	must(t, os.WriteFile(path, []byte("secret"), 0o600))
	must(t, os.Chown(path, 0, 4242))
	setACL(t, path, 1000)
	stop := make(chan struct{})
	member := start(func() error {
		runtime.LockOSThread() // The thread ends with the goroutine.
		unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		unix.RawSyscall(unix.SYS_SETRESGID, 4242, 4242, 4242)
		unix.RawSyscall(unix.SYS_SETRESUID, 4343, 4343, 4343)
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			names, _ := filepath.Glob(filepath.Join(dir, ".data.lockedfile-*"))
			for _, name := range append(names, path) {
				for range 30 {
					if fd, err := unix.Open(name, unix.O_RDONLY, 0); err == nil {
						t.Errorf("the group can read %s", name)
						unix.Close(fd)
						return nil
					}
				}
			}
		}
	})
	for begin := time.Now(); time.Since(begin) < 500*time.Millisecond && !t.Failed(); {
		must(t, Write(WithoutSync(bg), path, []byte("secret"), 0))
	}
	close(stop)
	finish(t, member)
}
