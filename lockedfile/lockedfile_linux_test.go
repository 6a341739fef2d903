package lockedfile

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
	"github.com/interlock-go/interlock/internal/portalocker"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() {
	children["do"] = do
	children["nolinks"] = nolinks
	children["forgotten"] = forgotten
}

// ops are what do can do to a file.
var ops = map[string]func(path string) error{
	"write":       func(path string) error { return Write(bg, path, large(), 0o600) },
	"trywrite":    func(path string) error { return TryWrite(path, large(), 0o600) },
	"transform":   func(path string) error { return Transform(bg, path, 0o600, enlarge) },
	"append":      func(path string) error { return Append(bg, path, large(), 0o600) },
	"shrink":      func(path string) error { return Write(bg, path, []byte("new"), 0o600) },
	"nosyncwrite": func(path string) error { return Write(WithoutSync(bg), path, large(), 0o600) },
	"nosyncappend": func(path string) error {
		return Append(WithoutSync(bg), path, large(), 0o600)
	},
}

var large = sync.OnceValue(func() []byte { return []byte(strings.Repeat("large", 100_000)) })

func enlarge(old []byte) ([]byte, error) { return append(old, large()...), nil }

// do does an op and prints its error, or ok. It does so with a system call that fails, if there
// are a third argument and a fourth, its number and the error's.
func do(args []string) {
	if len(args) == 4 {
		proc.Refuse(number(args[2]), unix.Errno(number(args[3])), -1)
	}
	if err := ops[args[0]](args[1]); err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		fmt.Println(unix.ErrnoName(errno), err)
		return
	}
	fmt.Println("ok")
}

func number(s string) uint32 {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return uint32(n)
}

// doWithout runs do with a system call that fails, and returns what it prints.
func doWithout(op, path string, call, errno int) string {
	p := proc.Start("do", op, path, strconv.Itoa(call), strconv.Itoa(errno))
	defer p.Close()
	return p.Expect("")
}

// doAsNobody runs do as an unprivileged user, without a system call if there are its number and the error's, and
// returns what it prints.
func doAsNobody(t *testing.T, op, path string, call ...int) string {
	t.Helper()
	args := []string{op, path}
	for _, n := range call {
		args = append(args, strconv.Itoa(n))
	}
	cmd := proc.Command("do", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	// Where an unprivileged user can run it.
	cmd.Path = filepath.Join("/tmp", fmt.Sprintf("lockedfile-test-%d", os.Getpid()))
	if _, err := os.Stat(cmd.Path); err != nil {
		self, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(cmd.Path, self, 0o755))
	}
	t.Cleanup(func() { os.Remove(cmd.Path) })
	cmd.Dir = "/"
	p := proc.StartCommand(cmd)
	defer p.Close()
	return p.Expect("")
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount and to be another user")
	}
}

// smallDisk mounts a tmpfs of one megabyte, and gives it a file with these contents, and then fills it but for
// some bytes.
func smallDisk(t *testing.T, contents string, left int) (path string) {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		t.Skipf("cannot mount tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755))
	path = filepath.Join(dir, "data")
	if contents != "" {
		must(t, os.WriteFile(path, []byte(contents), 0o600))
		must(t, os.Chmod(path, 0o666))
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	defer filler.Close()
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	info, err := filler.Stat()
	must(t, err)
	must(t, filler.Truncate(info.Size()-int64(left)))
	return path
}

func TestFullDiskLeavesTheOldContents(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for _, op := range []string{"write", "trywrite", "transform", "append"} {
		t.Run(op, func(t *testing.T) {
			path := smallDisk(t, contents, 100_000)
			before, err := os.Stat(path)
			must(t, err)
			var pathErr *fs.PathError
			if err := ops[op](path); !errors.Is(err, unix.ENOSPC) || !errors.As(err, &pathErr) || pathErr.Path != path {
				t.Error(err)
			}
			holds(t, path, contents)
			unlocked(t, path)
			if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
				t.Error("replaced", err)
			}
			missing := path + "2"
			if err := ops[op](missing); !errors.Is(err, unix.ENOSPC) {
				t.Error(err)
			}
			if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
				t.Error("created", err)
			}
			alone(t, path)
		})
	}
}

func TestFullDiskIsRolledBackInPlace(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for _, op := range []string{"write", "trywrite", "transform", "append"} {
		t.Run(op, func(t *testing.T) {
			path := smallDisk(t, contents, 100_000)
			if got := doAsNobody(t, op, path); !strings.HasPrefix(got, "ENOSPC") || !strings.Contains(got, path+":") {
				t.Error(got)
			}
			holds(t, path, contents)
		})
	}
}

// Where the old file has a hole, there is no room to write it back, and no need.
func TestSparseFileIsRolledBackInPlace(t *testing.T) {
	path := smallDisk(t, "old", 0)
	filler := filepath.Join(filepath.Dir(path), "filler")
	must(t, os.Truncate(path, 600_000))
	contents, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Truncate(filler, 800_000))
	f, err := os.OpenFile(filler, os.O_WRONLY|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if got := doAsNobody(t, "write", path); !strings.HasPrefix(got, "ENOSPC") || strings.Contains(got, "restored") {
		t.Error(got)
	}
	holds(t, path, string(contents))
}

func TestUnwritableDirectoryIsWrittenInPlace(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for op, want := range map[string]string{
		"write":     string(large()),
		"transform": contents + string(large()),
		"shrink":    "new",
	} {
		path := smallDisk(t, contents, 600_000)
		before, err := os.Stat(path)
		must(t, err)
		if got := doAsNobody(t, op, path); got != "ok" {
			t.Error(got)
		}
		holds(t, path, want)
		if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
			t.Error("not in place", err)
		}
		if got := doAsNobody(t, op, path+"2"); !strings.HasPrefix(got, "EACCES") || !strings.Contains(got, path+"2:") {
			t.Error(got)
		}
	}
}

// Until the disk has the entry of the directory, too, nobody who locks sees the new contents.
func TestNewFileIsLockedWhenItAppears(t *testing.T) {
	look := func(path string) {
		t.Helper()
		if data, err := os.ReadFile(path); err != nil || string(data) != "new" {
			t.Error(string(data), err)
		}
		if err := TryWrite(path, nil, 0); !errors.Is(err, interlock.ErrLocked) {
			t.Error(err)
		}
	}
	path := newFile(t, "old")
	r := newRequest(bg, "write", path, 0o600)
	f, err := r.open(os.O_RDWR, nil)
	must(t, err)
	defer opened.Release(f.File)
	next, err := r.replace(f, []byte("new"))
	must(t, err)
	defer opened.Release(next)
	look(path)

	created, err := r.link(path+"2", os.O_RDWR, []byte("new"))
	must(t, err)
	defer opened.Release(created)
	look(path + "2")

	// On NFS v4, what is open for reading can be locked for reading only.
	r.shared = true
	created, err = r.link(path+"3", os.O_RDONLY, nil)
	must(t, err)
	defer opened.Release(created)
	if err := TryWrite(path+"3", nil, 0); !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
	reader, err := OpenFile(bg, path+"3", os.O_RDONLY, 0)
	must(t, err)
	must(t, reader.Close())
}

// What a directory is called need not lead there.
func TestDirectoryThatOnlyTheKernelKnows(t *testing.T) {
	gone := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(gone, 0o755))
	dir, err := os.Open(gone)
	must(t, err)
	defer dir.Close()
	must(t, os.Remove(gone))
	other := gone + " (deleted)" // as the kernel calls it
	must(t, os.Mkdir(other, 0o755))
	must(t, os.WriteFile(filepath.Join(other, "data"), []byte("other"), 0o600))
	path := fmt.Sprintf("/proc/self/fd/%d/data", dir.Fd())
	if data, err := Read(bg, path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", data, err)
	}
	if err := Write(bg, path, []byte("new"), 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	holds(t, filepath.Join(other, "data"), "other")

	needRoot(t)
	over := filepath.Dir(gone)
	must(t, os.WriteFile(filepath.Join(over, "data"), []byte("under"), 0o600))
	t.Chdir(over)
	if err := unix.Mount("tmpfs", over, "tmpfs", 0, ""); err != nil {
		t.Skip("cannot mount:", err)
	}
	defer unix.Unmount(over, unix.MNT_DETACH)
	must(t, os.WriteFile(filepath.Join(over, "data"), []byte("over"), 0o600))
	must(t, Append(bg, "data", []byte("!"), 0o600))
	must(t, Transform(bg, "data", 0o600, func(old []byte) ([]byte, error) { return append(old, '!'), nil }))
	holds(t, "data", "under!!")
	holds(t, filepath.Join(over, "data"), "over")
}

// In a sticky directory no file is created where somebody else's link leads to.
func TestNothingIsCreatedByALinkOfAnother(t *testing.T) {
	needRoot(t)
	sticky, elsewhere := t.TempDir(), t.TempDir()
	must(t, os.Chmod(sticky, fs.ModeSticky|0o777))
	for op := range ops {
		for uid, may := range map[int]bool{0: true, 65534: false} {
			link, target := filepath.Join(sticky, fmt.Sprint(op, uid)), filepath.Join(elsewhere, fmt.Sprint(op, uid))
			must(t, os.Symlink(target, link))
			must(t, os.Lchown(link, uid, uid))
			err := ops[op](link)
			if _, statErr := os.Lstat(target); may != (err == nil) || may != (statErr == nil) || !may && !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%s by a link of %d: %v, %v", op, uid, err, statErr)
			}
		}
	}
}

// A link that is another one by the time that it has been read proves nothing.
func TestLinkThatIsExchanged(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink("one", link))
	before, err := os.Lstat(link)
	must(t, err)
	must(t, mayFollow(link, before))
	if err := mayFollow(link, nil); err != errAgain { // it was not there before
		t.Error(err)
	}
	must(t, os.Symlink("two", link+"2"))
	must(t, os.Rename(link+"2", link))
	if err := mayFollow(link, before); err != errAgain {
		t.Error(err)
	}
	must(t, os.Remove(link))
	if err := mayFollow(link, before); err != errAgain {
		t.Error(err)
	}
	must(t, os.WriteFile(link, nil, 0o600))
	if err := mayFollow(link, before); err != errAgain {
		t.Error(err)
	}
}

// A new file that is open for reading is not removed under another reader.
func TestNewFileThatOthersReadIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	r := newRequest(bg, "open", path, 0o600)
	r.shared = true
	f, err := r.create(path, os.O_RDONLY, nil)
	must(t, err)
	reader, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	f.uncreate()
	holds(t, path, "")
	must(t, reader.Close())
	f.uncreate()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	opened.Release(f.File)
}

// What somebody else has written to a new file, without a lock, stays.
func TestFailedTransformLeavesWhatOthersWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	failure := errors.New("failure")
	err := Transform(bg, path, 0o600, func([]byte) ([]byte, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		must(t, err)
		_, err = f.WriteString("theirs")
		must(t, err)
		return nil, cmp.Or(f.Close(), failure)
	})
	if err != failure {
		t.Error(err)
	}
	holds(t, path, "theirs")
}

// Where the directory cannot be read, the whole file system is synced.
func TestDirectoryThatCannotBeReadIsSynced(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(filepath.Dir(dir)), 0o755))
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	must(t, os.Chmod(dir, 0o333))
	for _, op := range []string{"write", "append", "transform"} {
		path := filepath.Join(dir, op)
		if got := doAsNobody(t, op, path, unix.SYS_SYNCFS, int(unix.EIO)); !strings.HasPrefix(got, "EIO") || !strings.Contains(got, path+":") {
			t.Error(op, got)
		}
		if got := doAsNobody(t, op, path); got != "ok" {
			t.Error(op, got)
		}
	}
}

// A directory that is writable, but an owner that cannot be kept.
func TestForeignOwnerIsKept(t *testing.T) {
	path := smallDisk(t, "old", 600_000)
	must(t, os.Chmod(filepath.Dir(path), 0o777))
	if got := doAsNobody(t, "write", path); got != "ok" {
		t.Error(got)
	}
	holds(t, path, string(large()))
	if st := owner(t, path); st.Uid != 0 || st.Gid != 0 || st.Mode&0o7777 != 0o666 {
		t.Error(st)
	}
}

func owner(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	must(t, unix.Stat(path, &st))
	return st
}

func TestModeAndOwnerAreKept(t *testing.T) {
	needRoot(t)
	for _, mode := range []uint32{0o600, 0o644, 0o777, 0o000, 0o4755, 0o2751, 0o7777} {
		path := newFile(t, "1")
		must(t, os.Chown(path, 1234, 5678))
		must(t, unix.Chmod(path, mode))
		before := owner(t, path)
		open, err := os.Open(path) // so that its inode is not used again
		must(t, err)
		defer open.Close()
		must(t, Transform(bg, path, 0o666, addOne))
		must(t, Write(bg, path, []byte("new"), 0o666))
		must(t, TryWrite(path, []byte("newer"), 0o666))
		after := owner(t, path)
		if after.Uid != 1234 || after.Gid != 5678 || after.Mode != before.Mode || after.Ino == before.Ino {
			t.Errorf("%+v became %+v", before, after)
		}
		holds(t, path, "newer")
	}
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	for _, op := range []string{"write", "transform", "append"} {
		path := filepath.Join(t.TempDir(), "data")
		must(t, ops[op](path))
		if mode := owner(t, path).Mode; mode&0o777 != 0o600 {
			t.Errorf("%s: %o", op, mode)
		}
		must(t, Write(bg, path+"2", nil, 0o666))
		if mode := owner(t, path+"2").Mode; mode&0o777 != 0o640 {
			t.Errorf("umask: %o", mode)
		}
	}
}

func TestMountPointIsWrittenInPlace(t *testing.T) {
	needRoot(t)
	path, source := newFile(t, "1"), newFile(t, "10")
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer unix.Unmount(path, unix.MNT_DETACH)
	must(t, Transform(bg, path, 0, addOne))
	holds(t, path, "11")
	holds(t, source, "11")
}

// Programs that take the lock by flock(2) and this package exclude each other.
func TestFlockTakesPart(t *testing.T) {
	path := newFile(t, "old")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Flock(fd, unix.LOCK_SH))
	if data, err := Read(bg, path); err != nil || string(data) != "old" {
		t.Error(data, err)
	}
	written := start(func() error { return Write(bg, path, []byte("new"), 0) })
	pending(t, written)
	must(t, unix.Flock(fd, unix.LOCK_UN))
	must(t, finish(t, written))

	f := hold(t, path)
	fd2, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd2)
	if err := unix.Flock(fd2, unix.LOCK_SH|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Error(err)
	}
	must(t, f.Close())
	must(t, unix.Flock(fd2, unix.LOCK_EX|unix.LOCK_NB))
	read := start(func() error { _, err := Read(bg, path); return err })
	pending(t, read)
	must(t, unix.Flock(fd2, unix.LOCK_UN))
	must(t, finish(t, read))
}

// If the disk does not confirm, it is not done; and WithoutSync does not ask it.
func TestSync(t *testing.T) {
	for op := range ops {
		path := newFile(t, "old")
		got := doWithout(op, path, unix.SYS_FSYNC, int(unix.EIO))
		if !strings.HasPrefix(op, "nosync") {
			if !strings.HasPrefix(got, "EIO") {
				t.Error(op, got)
			}
			holds(t, path, "old")
			if got := doWithout(op, path+"2", unix.SYS_FSYNC, int(unix.EIO)); !strings.HasPrefix(got, "EIO") {
				t.Error(op, got)
			}
			alone(t, path)
			continue
		}
		if got != "ok" || doWithout(op, path+"2", unix.SYS_FSYNC, int(unix.EIO)) != "ok" {
			t.Error(op, got)
		}
	}
}

func TestFileSystemWithoutHardLinks(t *testing.T) {
	for op := range ops {
		for _, errno := range []int{int(unix.EPERM), int(unix.ENOSYS), int(unix.EOPNOTSUPP)} {
			path := filepath.Join(t.TempDir(), "data")
			if got := doWithout(op, path, unix.SYS_LINKAT, errno); got != "ok" {
				t.Error(op, got)
			}
			want := string(large())
			if op == "shrink" {
				want = "new"
			}
			holds(t, path, want)
		}
	}
}

// nolinks makes a file where there are no hard links, so that it can be seen before it is locked; and then
// fails. In between, somebody else appends to it, or the wait for its lock ends.
func nolinks(args []string) {
	proc.Refuse(unix.SYS_LINKAT, unix.EPERM, -1)
	ctx, cancel := context.WithCancel(bg)
	r := newRequest(ctx, "transform", args[0], 0o600)
	lock := r.lock
	r.lock = func(f *os.File) error {
		r.lock = lock
		switch args[1] {
		case "append":
			interlock.Must(0, Append(bg, args[0], []byte("precious"), 0))
		case "cancel":
			cancel()
		}
		return lock(f)
	}
	fmt.Println(r.transform(func(old []byte) ([]byte, error) { return nil, fmt.Errorf("given %q", old) }))
}

func TestAFileThatAppearsEmptyIsNobodysYet(t *testing.T) {
	for _, do := range []string{"append", "cancel", "nothing"} {
		path := filepath.Join(t.TempDir(), "data")
		p := proc.Start("nolinks", path, do)
		got := p.Expect("")
		must(t, p.Close())
		data, err := os.ReadFile(path)
		if do == "append" {
			if got != `given "precious"` || string(data) != "precious" {
				t.Errorf("%s: %s, and the file holds %q, %v", do, got, data, err)
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %s, and the file is left, %v", do, got, err)
		}
	}
}

// forgotten reads a file that is replaced while it waits for it, where the file system then knows the old one no
// more: a call on it fails.
func forgotten(args []string) {
	path := args[0]
	low := interlock.Must(os.Open("/dev/null"))
	r := newRequest(bg, "read", path, 0)
	lock := r.lock
	r.lock = func(f *os.File) error {
		r.lock = lock
		interlock.Must(0, os.Rename(path+"2", path))
		proc.Refuse(number(args[1]), unix.Errno(number(args[2])), int(f.Fd()))
		low.Close() // its number is for the next file: that of f does not become free in time
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

func TestWaitersOfAForgottenFileMoveOn(t *testing.T) {
	for _, fails := range [][2]int{
		{unix.SYS_FSTAT, int(unix.ESTALE)}, {unix.SYS_FSTAT, int(unix.ENOENT)}, {unix.SYS_FLOCK, int(unix.ESTALE)},
	} {
		path := newFile(t, "old")
		must(t, os.WriteFile(path+"2", []byte("new"), 0o600))
		p := proc.Start("forgotten", path, strconv.Itoa(fails[0]), strconv.Itoa(fails[1]))
		if got := p.Expect(""); got != "new <nil>" {
			t.Error(fails, got)
		}
		must(t, p.Close())
	}
}

// What a file system says of a write only when a descriptor is closed, is not lost; and if nobody waits for the
// disk, it comes in time.
func TestErrorsOfClosing(t *testing.T) {
	for op := range ops {
		path := newFile(t, "old")
		if got := doWithout(op, path, unix.SYS_CLOSE, int(unix.EDQUOT)); !strings.HasPrefix(got, "EDQUOT") || !strings.Contains(got, path+":") {
			t.Error(op, got)
		}
		if !strings.HasPrefix(op, "nosync") {
			continue
		}
		holds(t, path, "old")
		if got := doWithout(op, path+"2", unix.SYS_CLOSE, int(unix.EDQUOT)); !strings.HasPrefix(got, "EDQUOT") {
			t.Error(op, got)
		}
		if _, err := os.Stat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
			t.Error(op, "created", err)
		}
		alone(t, path)
	}
}

// An error of the disk is no reason to overwrite a file.
func TestOtherErrorsLeaveTheFileAlone(t *testing.T) {
	path := newFile(t, "old")
	before := owner(t, path)
	if got := doWithout("write", path, unix.SYS_FSYNC, int(unix.EINVAL)); !strings.HasPrefix(got, "EINVAL") {
		t.Error(got)
	}
	if after := owner(t, path); after.Ino != before.Ino || after.Mtim != before.Mtim {
		t.Error("written to")
	}
	holds(t, path, "old")
}

// A link of /proc leads to a file, too, that has no name any more. That cannot be changed.
func TestFileWithoutAName(t *testing.T) {
	path := newFile(t, "old")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(path))
	name := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
	for op := range ops {
		if err := finish(t, start(func() error { return ops[op](name) })); !errors.Is(err, errReplaced) {
			t.Error(op, err)
		}
	}
	if data, err := Read(bg, name); string(data) != "old" {
		t.Error(string(data), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Error(left, err)
	}
}

func TestWhatIsNoRegularFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	fifo, sock := filepath.Join(dir, "fifo"), filepath.Join(dir, "socket")
	must(t, unix.Mkfifo(fifo, 0o600))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: sock}))
	for path, what := range map[string]string{dir: "directory", fifo: "FIFO", sock: "socket", "/dev/null": "device"} {
		calls := []func() error{
			func() error { _, err := Read(bg, path); return err },
			func() error { _, err := OpenFile(bg, path, os.O_WRONLY|os.O_CREATE, 0o600); return err },
		}
		for op := range ops {
			calls = append(calls, func() error { return ops[op](path) })
		}
		for _, call := range calls {
			var pathErr *fs.PathError
			err := finish(t, start(call))
			if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.Contains(err.Error(), what) {
				t.Error(err)
			}
		}
	}
}

// Errors and stale files leave no descriptor open.
func TestNoDescriptorIsLeft(t *testing.T) {
	open := func() []string {
		dir, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		var names []string
		for _, entry := range dir {
			if name, _ := os.Readlink("/proc/self/fd/" + entry.Name()); strings.Contains(name, os.TempDir()) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	TestTransformUndone(t)
	TestWaitersOfAReplacedFileMoveOn(t)
	TestFullDiskLeavesTheOldContents(t)
	if left := open(); len(left) > 0 {
		t.Error(left)
	}
}

// A Python program that locks the same file by portalocker takes part.
func TestPortalockerTakesPart(t *testing.T) {
	p := portalocker.Start(t)
	path := newFile(t, "one\n")
	p.Ask("lock "+path, "ok")
	if err := TryWrite(path, nil, 0o600); !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
	w := start(func() error { return Append(bg, path, []byte("three\n"), 0o600) })
	pending(t, w)
	p.Ask("append two", "ok")
	p.Ask("release", "ok")
	must(t, finish(t, w))
	holds(t, path, "one\ntwo\nthree\n")

	f, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	p.Ask("try "+path, "locked")
	p.Ask("tryshared "+path, "ok")
	must(t, f.Close())
	w = start(func() error {
		return Transform(bg, path, 0o600, func(old []byte) ([]byte, error) { return append(old, "four\n"...), nil })
	})
	pending(t, w)
	p.Ask("release", "ok")
	must(t, finish(t, w))
	p.Ask("lock "+path, "ok") // the new file
	p.Ask("append five", "ok")
	p.Ask("release", "ok")
	holds(t, path, "one\ntwo\nthree\nfour\nfive\n")
}

// acl is a list (acl(5)) by which the owner and one more user can read and write, and the owning group cannot.
func acl(uid uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, 2) // the version
	for _, entry := range []struct {
		tag, perm uint16
		id        uint32
	}{{1, 6, 1<<32 - 1}, {2, 6, uid}, {4, 0, 1<<32 - 1}, {16, 6, 1<<32 - 1}, {32, 0, 1<<32 - 1}} {
		b = le.AppendUint32(le.AppendUint16(le.AppendUint16(b, entry.tag), entry.perm), entry.id)
	}
	return b
}

// A new file lets in whom the old one let in, and nobody else.
func TestAccessControlListsAreKept(t *testing.T) {
	const attr = "system.posix_acl_access"
	path := newFile(t, "old")
	if err := unix.Setxattr(path, attr, acl(1000), 0); err != nil {
		t.Skipf("no access control lists on the file system of %s: %v", path, err)
	}
	before, err := os.Stat(path)
	must(t, err)
	must(t, Write(bg, path, []byte("new"), 0))
	buf := make([]byte, 1000)
	n, err := unix.Getxattr(path, attr, buf)
	must(t, err)
	if !bytes.Equal(buf[:n], acl(1000)) {
		t.Error(buf[:n])
	}
	after, err := os.Stat(path)
	must(t, err)
	if before.Mode() != after.Mode() || os.SameFile(before, after) {
		t.Error(before.Mode(), after.Mode())
	}

	// Nor does the directory give the new file a list that the old one did not have.
	must(t, unix.Setxattr(filepath.Dir(path), "system.posix_acl_default", acl(1234), 0))
	path = filepath.Join(filepath.Dir(path), "plain")
	must(t, os.WriteFile(path, nil, 0o660))
	must(t, unix.Removexattr(path, attr))
	must(t, os.Chmod(path, 0o660))
	must(t, Write(bg, path, []byte("new"), 0))
	if _, err := unix.Getxattr(path, attr, buf); err != unix.ENODATA {
		t.Error(err)
	}
}

// Something in the way of the temporary file is no reason to be less safe.
// Not even for an instant is the new file open to the group that its access control list shuts out, though the
// mode of such a file looks as if it were.
func TestNewFileIsNotOpenToWhomTheListShutsOut(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp("/tmp", "lockedfile-test-*") // which others can reach
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "data")
	must(t, os.WriteFile(path, []byte("secret"), 0o600))
	must(t, os.Chown(path, 0, 4242))
	if err := unix.Setxattr(path, "system.posix_acl_access", acl(1000), 0); err != nil {
		t.Skipf("no access control lists on the file system of %s: %v", path, err)
	}
	stop := make(chan struct{})
	var member sync.WaitGroup
	member.Go(func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		unix.RawSyscall(unix.SYS_SETRESGID, 4242, 4242, 4242)
		unix.RawSyscall(unix.SYS_SETRESUID, 4343, 4343, 4343)
		for {
			select {
			case <-stop:
				return
			default:
			}
			names, _ := filepath.Glob(filepath.Join(dir, ".data.lockedfile-*"))
			for _, name := range append(names, path) {
				for range 30 {
					if fd, err := unix.Open(name, unix.O_RDONLY, 0); err == nil {
						t.Errorf("%s can be read", name)
						unix.Close(fd)
						return
					}
				}
			}
		}
	})
	for begin := time.Now(); time.Since(begin) < 500*time.Millisecond && !t.Failed(); {
		must(t, Write(WithoutSync(bg), path, []byte("secret"), 0))
	}
	close(stop)
	member.Wait()
}

func TestPlantedTemporaryFile(t *testing.T) {
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
