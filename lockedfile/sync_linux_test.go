package lockedfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSyncErrorIsReturned(t *testing.T) {
	for op := range ops {
		path := newFile(t, "old")
		got := doWithout(op, path, unix.SYS_FSYNC, int(unix.EIO))
		if strings.HasPrefix(op, "nosync") {
			if got != "ok" || doWithout(op, path+"2", unix.SYS_FSYNC, int(unix.EIO)) != "ok" {
				t.Error(op, got)
			}
			continue
		}
		if !strings.HasPrefix(got, "EIO") {
			t.Error(op, got)
		}
		wantFile(t, path, "old")
		if got := doWithout(op, path+"2", unix.SYS_FSYNC, int(unix.EIO)); !strings.HasPrefix(got, "EIO") {
			t.Error(op, got)
		}
		wantNoTemp(t, path)
	}
}

func TestSyncErrorDoesNotLeadToOverwrite(t *testing.T) {
	path := newFile(t, "old")
	before := stat(t, path)
	if got := doWithout("write", path, unix.SYS_FSYNC, int(unix.EINVAL)); !strings.HasPrefix(got, "EINVAL") {
		t.Error(got)
	}
	if after := stat(t, path); after.Ino != before.Ino || after.Mtim != before.Mtim {
		t.Error("written to")
	}
	wantFile(t, path, "old")
}

func TestFileSystemIsSyncedForUnreadableDirectory(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	openToAll(t, dir)
	must(t, os.Chmod(dir, 0o333))
	for _, op := range []string{"write", "append", "transform"} {
		path := filepath.Join(dir, op)
		got := doAsNobody(t, op, path, unix.SYS_SYNCFS, int(unix.EIO))
		if !strings.HasPrefix(got, "EIO") || !strings.Contains(got, path+":") {
			t.Error(op, got)
		}
		if got := doAsNobody(t, op, path); got != "ok" {
			t.Error(op, got)
		}
	}
}

// TestCloseErrorIsReturned has close(2) report a failed write, as a network
// file system may. Without sync, that comes before the file is replaced.
func TestCloseErrorIsReturned(t *testing.T) {
	for op := range ops {
		path := newFile(t, "old")
		got := doWithout(op, path, unix.SYS_CLOSE, int(unix.EDQUOT))
		if !strings.HasPrefix(got, "EDQUOT") || !strings.Contains(got, path+":") {
			t.Error(op, got)
		}
		if !strings.HasPrefix(op, "nosync") {
			continue
		}
		wantFile(t, path, "old")
		if got := doWithout(op, path+"2", unix.SYS_CLOSE, int(unix.EDQUOT)); !strings.HasPrefix(got, "EDQUOT") {
			t.Error(op, got)
		}
		wantNoFile(t, path+"2")
		wantNoTemp(t, path)
	}
}
