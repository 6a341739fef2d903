//go:build !interlock_bsd

package proclocks

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

var must = kit.Must

// open opens the file at path, and creates it if needed, for the time of the
// test.
func open(t testing.TB, path string) (fd int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// want fails unless these are the locks of the file, in this order, within a
// minute.
func want(t testing.TB, path string, want ...Lock) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		got, err := Of(path)
		must(t, err)
		if slices.Equal(got, want) {
			return
		}
		if len(got) == len(want) && len(got) > 0 || time.Since(begin) > time.Minute {
			t.Errorf("%+v, want %+v", got, want)
			return
		}
	}
}

func TestFlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	fd, other := open(t, path), open(t, path)
	self := Lock{Kind: "FLOCK", PID: os.Getpid(), End: math.MaxInt64}
	shared, waiting := self, self
	shared.Shared, waiting.Waiting = true, true

	want(t, path)
	must(t, unix.Flock(fd, unix.LOCK_SH))
	want(t, path, shared)
	must(t, unix.Flock(other, unix.LOCK_SH))
	want(t, path, shared) // one process, listed once
	must(t, unix.Flock(other, unix.LOCK_UN))
	must(t, unix.Flock(fd, unix.LOCK_EX))
	want(t, path, self)

	done := make(chan error, 1)
	go func() { done <- unix.Flock(other, unix.LOCK_EX) }()
	want(t, path, self, waiting)
	must(t, unix.Flock(fd, unix.LOCK_UN))
	must(t, <-done)
	want(t, path, self)
	must(t, unix.Flock(other, unix.LOCK_UN))
	want(t, path)
}

func TestRangeLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	fd := open(t, path)
	set := func(how int, kind int16, start, length int64) {
		t.Helper()
		must(t, unix.FcntlFlock(uintptr(fd), how, &unix.Flock_t{Type: kind, Start: start, Len: length}))
	}
	set(unix.F_OFD_SETLK, unix.F_RDLCK, 1<<61, 1)
	want(t, path, Lock{Kind: "OFDLCK", Shared: true, Start: 1 << 61, End: 1 << 61})
	set(unix.F_OFD_SETLK, unix.F_WRLCK, 1<<61, 2)
	want(t, path, Lock{Kind: "OFDLCK", Start: 1 << 61, End: 1<<61 + 1})
	set(unix.F_OFD_SETLK, unix.F_UNLCK, 0, 0)
	set(unix.F_SETLK, unix.F_WRLCK, 5, 0)
	want(t, path, Lock{Kind: "POSIX", PID: os.Getpid(), Start: 5, End: math.MaxInt64})
	set(unix.F_SETLK, unix.F_UNLCK, 0, 0)
	want(t, path)
}

func TestOfFollowsSymbolicLinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, unix.Flock(open(t, path), unix.LOCK_EX))
	must(t, os.Symlink(path, path+".link"))
	want(t, path+".link", Lock{Kind: "FLOCK", PID: os.Getpid(), End: math.MaxInt64})
}

// Another file system may have a file with the same inode number.
func TestOfOnAnotherFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		need.Skip(t, "cannot mount:", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	path := filepath.Join(dir, "file")
	must(t, unix.Flock(open(t, path), unix.LOCK_EX))
	want(t, path, Lock{Kind: "FLOCK", PID: os.Getpid(), End: math.MaxInt64})
	if name, err := nameOf(path); err != nil || find("1: FLOCK  ADVISORY  WRITE 1 "+name+" 0 EOF", name) == nil {
		t.Error(name, err)
	}
}

func TestOfRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	join := func(name string) string { return filepath.Join(dir, name) }
	must(t, unix.Mkfifo(join("fifo"), 0o600))
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(socket)
	t.Chdir(dir) // the path of a socket must be short
	must(t, unix.Bind(socket, &unix.SockaddrUnix{Name: "socket"}))
	for path, want := range map[string]struct {
		err  error
		text string
	}{
		dir:             {unix.EISDIR, "is a directory, not a regular file"},
		join("fifo"):    {unix.EINVAL, "is a FIFO, not a regular file"},
		join("socket"):  {unix.EINVAL, "is a socket, not a regular file"},
		"/dev/null":     {unix.EINVAL, "is a device, not a regular file"},
		join("missing"): {fs.ErrNotExist, "open " + join("missing") + ": no such file or directory"},
	} {
		if locks, err := Of(path); !errors.Is(err, want.err) || err.Error() != want.text || locks != nil {
			t.Errorf("%s: %v, %v, want %s", path, locks, err, want.text)
		}
	}
}

func TestOfLeavesNothingOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	must(t, unix.Flock(open(t, path), unix.LOCK_EX))
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	before := open()
	for range 10 {
		_, err := Of(path)
		must(t, err)
		_, err = Of(filepath.Dir(path))
		if err == nil {
			t.Error("a directory is not refused")
		}
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

// The list of all locks takes many reads, and changes between them.
func TestLockIsListedOnceWhileOthersChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	fd, other := open(t, path), open(t, filepath.Join(dir, "other"))
	set := func(at int64, kind int16) {
		if err := unix.FcntlFlock(uintptr(other), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: 1}); err != nil {
			t.Error(err)
		}
	}
	for i := range int64(100) {
		set(2*i, unix.F_WRLCK)
	}
	must(t, unix.Flock(fd, unix.LOCK_EX))
	ctx, cancel := context.WithCancel(t.Context())
	var churn sync.WaitGroup
	churn.Add(1)
	go func() {
		defer churn.Done()
		for ctx.Err() == nil {
			set(999, unix.F_WRLCK)
			set(999, unix.F_UNLCK)
		}
	}()
	self := Lock{Kind: "FLOCK", PID: os.Getpid(), End: math.MaxInt64}
	for i := range int64(200) {
		set(1002+2*i, unix.F_WRLCK) // which moves the lock in the list
		if got, err := Of(path); err != nil || !slices.Equal(got, []Lock{self}) {
			t.Errorf("one lock is %+v, %v", got, err)
			break
		}
	}
	cancel()
	churn.Wait()
}
