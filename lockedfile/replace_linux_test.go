package lockedfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
)

func init() { children["forgotten"] = forgotten }

// wantNewAndLocked fails unless the file at path contains "new" and is locked.
func wantNewAndLocked(t *testing.T, path string) {
	t.Helper()
	if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
		t.Error(string(data), err)
	}
	if err := TryWrite(path, nil, 0); !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
}

func TestReplacementIsLockedWhenItAppears(t *testing.T) {
	path := newFile(t, "old")
	r := newRequest(bg, "write", path, 0o600)
	f, err := r.open(os.O_RDWR, nil)
	must(t, err)
	defer release(f.File)
	next, err := r.replace(f, []byte("new"))
	must(t, err)
	defer release(next)
	wantNewAndLocked(t, path)
}

func TestModeAndOwnerAreKept(t *testing.T) {
	needRoot(t)
	for _, mode := range []uint32{0o600, 0o644, 0o777, 0o000, 0o4755, 0o2751, 0o7777} {
		path := newFile(t, "1")
		must(t, os.Chown(path, 1234, 5678))
		must(t, unix.Chmod(path, mode))
		before := stat(t, path)
		open, err := os.Open(path) // so that its inode number is not used again
		must(t, err)
		defer open.Close()
		must(t, Transform(bg, path, 0o666, addOne))
		must(t, Write(bg, path, []byte("new"), 0o666))
		must(t, TryWrite(path, []byte("newer"), 0o666))
		after := stat(t, path)
		if after.Uid != 1234 || after.Gid != 5678 || after.Mode != before.Mode || after.Ino == before.Ino {
			t.Errorf("%+v became %+v", before, after)
		}
		wantFile(t, path, "newer")
	}
}

func TestMountPointIsOverwritten(t *testing.T) {
	needRoot(t)
	path, source := newFile(t, "1"), newFile(t, "10")
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		need.Skip(t, "cannot mount:", err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	must(t, Transform(bg, path, 0, addOne))
	wantFile(t, path, "11")
	wantFile(t, source, "11")
}

func TestPlantedTempFileDoesNotPreventReplacement(t *testing.T) {
	path := newFile(t, "old")
	before, err := os.Stat(path)
	must(t, err)
	must(t, os.MkdirAll(beside(path, inode(before))+"/full", 0o700))
	must(t, Write(bg, path, []byte("new"), 0))
	after, err := os.Stat(path)
	must(t, err)
	if os.SameFile(before, after) {
		t.Error("overwritten in place")
	}
}

// forgotten reads a file that is replaced while it waits for the lock. From
// then on, a system call on the old file fails, as on a remote file system that
// no longer knows the file.
func forgotten(args []string) {
	path := args[0]
	low := interlock.Must(os.Open("/dev/null"))
	r := newRequest(bg, "read", path, 0)
	lock := r.lock
	r.lock = func(f *os.File) error {
		r.lock = lock
		interlock.Must(0, os.Rename(path+"2", path))
		proc.Refuse(number(args[1]), unix.Errno(number(args[2])), int(f.Fd()))
		low.Close() // The new file gets this descriptor, not the one of f.
		return lock(f)
	}
	f, err := r.open(os.O_RDWR, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	data, err := io.ReadAll(f)
	fmt.Println(string(data), err)
}

func TestWaitersOfForgottenFileMoveOn(t *testing.T) {
	for _, failure := range []struct {
		call  int
		errno unix.Errno
	}{
		{unix.SYS_FSTAT, unix.ESTALE},
		{unix.SYS_FSTAT, unix.ENOENT},
		{unix.SYS_FLOCK, unix.ESTALE},
	} {
		path := newFile(t, "old")
		must(t, os.WriteFile(path+"2", []byte("new"), 0o600))
		p := proc.Start("forgotten", path, strconv.Itoa(failure.call), strconv.Itoa(int(failure.errno)))
		if got := p.Expect(""); got != "new <nil>" {
			t.Error(failure, got)
		}
		must(t, p.Close())
	}
}

func TestOwnerThatCannotBeGivenIsKept(t *testing.T) {
	path := smallDisk(t, "old", 600_000)
	must(t, os.Chmod(filepath.Dir(path), 0o777))
	if got := doAsNobody(t, "write", path); got != "ok" {
		t.Error(got)
	}
	wantFile(t, path, string(large()))
	if st := stat(t, path); st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o666 {
		t.Error(st)
	}
}
