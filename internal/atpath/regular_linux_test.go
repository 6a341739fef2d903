package atpath

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A file server may have a lease on the file, and gives it up when the kernel
// asks for it.
func TestOpenRegularWaitsForLease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	owner, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	fd := owner.Fd()
	if _, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		t.Skip("the file system has no leases:", err)
	}
	given := make(chan error, 1)
	go func() {
		time.Sleep(20 * time.Millisecond)
		_, err := unix.FcntlInt(fd, unix.F_SETLEASE, unix.F_UNLCK)
		given <- err
	}()
	f, err := OpenRegular(path, os.O_RDWR, os.Stat)
	if err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	if err := <-given; err != nil {
		t.Error(err)
	}
}
