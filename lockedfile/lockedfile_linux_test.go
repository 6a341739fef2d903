package lockedfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/opened"
	"github.com/interlock-go/interlock/internal/portalocker"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() { children["do"] = do }

// ops are what do can do to a file.
var ops = map[string]func(path string) error{
	"write":       func(path string) error { return Write(bg, path, large, 0o600) },
	"trywrite":    func(path string) error { return TryWrite(path, large, 0o600) },
	"transform":   func(path string) error { return Transform(bg, path, 0o600, enlarge) },
	"append":      func(path string) error { return Append(bg, path, large, 0o600) },
	"shrink":      func(path string) error { return Write(bg, path, []byte("new"), 0o600) },
	"nosyncwrite": func(path string) error { return Write(WithoutSync(bg), path, large, 0o600) },
	"nosyncappend": func(path string) error {
		return Append(WithoutSync(bg), path, large, 0o600)
	},
}

var large = []byte(strings.Repeat("large", 100_000))

func enlarge(old []byte) ([]byte, error) { return append(old, large...), nil }

// do does an op and prints its error, or ok. It does so with a system call that fails, if there
// are a third argument and a fourth, its number and the error's.
func do(args []string) {
	if len(args) == 4 {
		refuse(number(args[2]), number(args[3]))
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

// refuse makes a system call fail from now on, by seccomp(2).
func refuse(call, errno uint32) {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | errno},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		panic(e)
	}
}

// doWithout runs do with a system call that fails, and returns what it prints.
func doWithout(op, path string, call, errno int) string {
	p := proc.Start("do", op, path, strconv.Itoa(call), strconv.Itoa(errno))
	defer p.Close()
	return p.Expect("")
}

// doAsNobody runs do as an unprivileged user, and returns what it prints.
func doAsNobody(t *testing.T, op, path string) string {
	t.Helper()
	cmd := proc.Command("do", op, path)
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

func TestUnwritableDirectoryIsWrittenInPlace(t *testing.T) {
	contents := strings.Repeat("old", 5000)
	for op, want := range map[string]string{
		"write":     string(large),
		"transform": contents + string(large),
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
}

// A directory that is writable, but an owner that cannot be kept.
func TestForeignOwnerIsKept(t *testing.T) {
	path := smallDisk(t, "old", 600_000)
	must(t, os.Chmod(filepath.Dir(path), 0o777))
	if got := doAsNobody(t, "write", path); got != "ok" {
		t.Error(got)
	}
	holds(t, path, string(large))
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
			want := string(large)
			if op == "shrink" {
				want = "new"
			}
			holds(t, path, want)
		}
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
