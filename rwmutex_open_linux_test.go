//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() { children["denied"] = denied }

func TestConstructorRefusesOtherFiles(t *testing.T) {
	dir := t.TempDir()
	join := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.WriteFile(join("file"), []byte("precious"), 0o600))
	must(t, unix.Mkfifo(join("fifo"), 0o600))
	must(t, os.Symlink(join("file"), join("symlink")))
	must(t, os.Symlink(join("nowhere"), join("dangling")))
	must(t, os.Mkdir(join("dir"), 0o700))
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	must(t, unix.Bind(s, &unix.SockaddrUnix{Name: join("socket")}))
	unix.Close(s)
	before := listing(t, dir)
	for path, want := range map[string]error{
		join("fifo"):                   unix.EINVAL,
		join("symlink"):                unix.ELOOP,
		join("dangling"):               unix.ELOOP,
		join("dir"):                    unix.EISDIR,
		join("dir") + "/":              unix.EISDIR,
		join("socket"):                 unix.EINVAL,
		"/dev/null":                    unix.EINVAL,
		join("missing/lock"):           fs.ErrNotExist,
		join("file/lock"):              unix.ENOTDIR,
		join("nul\x00"):                unix.EINVAL,
		"":                             fs.ErrNotExist,
		join(strings.Repeat("x", 300)): unix.ENAMETOOLONG,
	} {
		m, err := NewFileRWMutex(path)
		var pathErr *fs.PathError
		if m != nil || !errors.Is(err, want) || errors.Is(err, ErrLocked) || !errors.As(err, &pathErr) || pathErr.Path != path || pathErr.Op != "open" {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the directory was:\n%s\nis:\n%s", before, after)
	}
}

func TestErrorSaysWhatKindOfFileIsAtThePath(t *testing.T) {
	path := lockPath(t)
	must(t, unix.Mkfifo(path, 0o600))
	if _, err := NewFileRWMutex(path); err == nil || err.Error() != "open "+path+": is a FIFO, not a regular file" {
		t.Error(err)
	}
}

func TestTooManyOpenFiles(t *testing.T) {
	path := lockPath(t)
	m, holder := newMutex(t, path), newMutex(t, path)
	defer noDescriptors(t)()
	_, err := NewFileRWMutex(path)
	var pathErr *fs.PathError
	if !errors.Is(err, unix.EMFILE) || !errors.As(err, &pathErr) || pathErr.Path != path {
		t.Error(err)
	}
	// Waiting in the kernel needs descriptors. Waiting works without them.
	holder.Lock()
	waiter := locking(t.Context(), m)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := m.RLockContext(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
	pending(t, waiter)
	holder.Unlock()
	must(t, finish(t, waiter))
	m.Unlock()
}

func TestWithPerm(t *testing.T) {
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	for _, perm := range []fs.FileMode{0, 0o600, 0o640, 0o666, 0o444} {
		path := lockPath(t)
		var opts []Option
		want := perm &^ 0o022
		if perm == 0 { // no option
			want = 0o600
		} else {
			opts = append(opts, WithPerm(perm))
		}
		newMutex(t, path, opts...)
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("WithPerm(%v) makes a file with %v, want %v", perm, info.Mode(), want)
		}
	}
}

// denied locks a file although the system denies flock(2), and prints the
// errors.
func denied(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	f := Must(os.Open(args[0]))
	proc.Refuse(unix.SYS_FLOCK, unix.EACCES, -1)
	ctx := context.Background()
	for _, call := range []func() error{
		func() error { return m.TryLockContext(ctx) },
		func() error { return m.LockContext(ctx) },
		func() error { return m.RLockContext(ctx) },
		func() error { return TryLock(f) },
		func() error { return Lock(ctx, f) },
	} {
		fmt.Println(call())
	}
}

// If a security module denies flock(2), the lock does not look as if it were
// held.
func TestLockThatIsDenied(t *testing.T) {
	path := lockPath(t)
	if !local(newMutex(t, path)) {
		t.Skip("on SMB, EACCES can mean that the lock is held")
	}
	p := proc.Start("denied", path)
	t.Cleanup(p.Kill)
	for _, op := range []string{"lock", "lock", "rlock", "lock", "lock"} {
		p.Expect(op + " " + path + ": permission denied")
	}
}

// If a FIFO takes the place of the file between two calls, the constructor says
// so, or opens the file when it is back.
func TestConstructorWhileFileChangesKind(t *testing.T) {
	dir := t.TempDir()
	path, fifo := filepath.Join(dir, "lock"), filepath.Join(dir, "fifo")
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, unix.Mkfifo(fifo, 0o600))
	stop := make(chan struct{})
	swapping := start(func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, fifo, unix.RENAME_EXCHANGE); err != nil {
				return err
			}
		}
	})
	opened, refused := 0, 0
	for begin := time.Now(); time.Since(begin) < time.Second/4; {
		m, err := NewFileRWMutex(path)
		switch {
		case err == nil:
			opened++
			m.Close()
		case errors.Is(err, unix.EINVAL):
			refused++
		default:
			t.Fatal(err)
		}
	}
	close(stop)
	if err := finish(t, swapping); err == unix.EINVAL {
		t.Skip("files cannot be exchanged here")
	} else {
		must(t, err)
	}
	t.Logf("opened %d times, refused %d times", opened, refused)
}

// A constructor waits for a process that has a lease on the file. The kernel
// asks that process to give up the lease.
func TestConstructorWaitsForLease(t *testing.T) {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGIO)
	defer signal.Stop(broken)
	for suffix, construct := range map[string]func(path string){
		"":            func(path string) { newMutex(t, path) },
		".gate.lock":  func(path string) { newSemaphore(t, path, 1) },
		".queue.lock": func(path string) { newSemaphore(t, path, 1) },
	} {
		path := lockPath(t) // a file that is open for writing cannot have a lease
		leased := path + suffix
		must(t, os.WriteFile(leased, nil, 0o600))
		f := Must(os.Open(leased))
		defer f.Close()
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
		if err == unix.EINVAL {
			t.Skip("the file system has no leases")
		}
		must(t, err)
		gone := start(func() error {
			<-broken
			time.Sleep(5 * time.Millisecond)
			_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
			return err
		})
		construct(path)
		must(t, finish(t, gone))
	}
}
