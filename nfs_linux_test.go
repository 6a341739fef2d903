//go:build !interlock_bsd

package interlock

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The other tests of NFS are in internal/systemtest.

// A mount of NFS, and its version, are recognized, and files are open for
// writing.
func TestNFSIsRecognized(t *testing.T) {
	if os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("needs the machines that make test-nfs starts")
	}
	for _, version := range []string{"3", "4.0", "4.2"} {
		t.Run("v"+version, func(t *testing.T) {
			dir, err := os.MkdirTemp("/mnt/v"+version, "test-*")
			must(t, err)
			path := filepath.Join(dir, "lock")
			m, waiter := newMutex(t, path), newMutex(t, path)
			m.Lock()
			waiting := start(func() error { return waiter.LockContext(t.Context()) })
			waitFor(t, "a writer stands at the gate", func() bool { return gated(waiter) })
			if s := m.file.file; s.local || !s.nfs || !s.writable || isNFS4(s.fd) != (version != "3") {
				t.Errorf("%+v", s)
			}
			for _, fd := range []int{m.file.file.fd, waiter.file.gate.file.fd} {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
					t.Errorf("a file has the flags %#x, %v", flags, err)
				}
			}
			for _, p := range []string{path, path + gateSuffix} {
				if info, err := os.Stat(p); err != nil || info.Mode() != 0o600 {
					t.Error(info, err)
				}
			}
			m.Unlock()
			must(t, finish(t, waiting))
			waiter.Unlock()
		})
	}
}
