//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// The tests can be run as if the system were poorer than it is, with INTERLOCK_TEST set to
//
//	remote    no file system is known to be local
//	poll      the kernel cannot wait
//	unmarked  a rename does not show in the ctime
func init() {
	switch os.Getenv("INTERLOCK_TEST") {
	case "remote":
		localFileSystems = nil
	case "poll":
		waits.TryAcquire(maxWaits)
	case "unmarked":
		renameMarking = nil
	}
	children["deaf"] = deaf
	children["try"] = try
	children["parent"] = parent
	children["sleep"] = func([]string) { bufio.NewReader(os.Stdin).ReadString('\n') }
	children["crowd"] = crowd
	children["refused"] = refused
}

// kernelLocks returns the lines about the file in /proc/locks, flock(2) locks and waits and such.
func kernelLocks(t *testing.T, path string) (lines []string) {
	t.Helper()
	name, err := kernelName(path)
	must(t, err)
	lines, err = locksOf(name)
	must(t, err)
	return lines
}

func TestReadersOfAProcessShareOneKernelLock(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	for range 10 {
		m.RLock()
	}
	if l := kernelLocks(t, path); len(l) != 1 || !strings.Contains(l[0], "FLOCK") || !strings.Contains(l[0], "READ") {
		t.Error(l)
	}
	for range 10 {
		m.RUnlock()
	}
	if l := kernelLocks(t, path); len(l) != 0 {
		t.Error(l)
	}
}

func descriptors(t *testing.T, pid string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + pid + "/fd")
	must(t, err)
	return len(entries)
}

func threadCount(t *testing.T, pid string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/" + pid + "/task")
	must(t, err)
	return len(entries)
}

func TestCancelsLeaveNothingBehind(t *testing.T) {
	path := lockPath(t)
	holder, m := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	storm := func() {
		hammer(t, 8, 60, func(i int) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			defer cancel()
			if i%2 == 0 {
				if m.LockContext(ctx) == nil {
					t.Error("two holders")
				}
			} else if m.RLockContext(ctx) == nil {
				t.Error("a reader beside a writer")
			}
		})
	}
	Must(unlockableFD()) // which is kept, as is the gate
	ctx, cancel := context.WithCancel(t.Context())
	waiter := start(func() error { return m.LockContext(ctx) })
	waitFor(t, "a waiter at the gate", func() bool { return gated(m) })
	cancel()
	if err := finish(t, waiter); err != context.Canceled {
		t.Error(err)
	}
	storm()
	fds, goroutines := descriptors(t, "self"), runtime.NumGoroutine()
	storm()
	waitFor(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds })
	if l := kernelLocks(t, path); len(l) != 1 || !strings.Contains(l[0], "FLOCK") {
		t.Error("more than the holder's lock: ", l)
	}
	holder.Unlock()
	if l := kernelLocks(t, path); len(l) != 0 {
		t.Error("left: ", l)
	}
}

// crowd waits for a lock with many goroutines, and says so.
func crowd(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	n, _ := strconv.Atoi(args[1])
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if i%2 == 0 {
				m.LockContext(ctx)
			} else {
				m.RLockContext(ctx)
			}
		})
	}
	for queued(m) < n {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("waiting")
	bufio.NewReader(os.Stdin).ReadString('\n')
	cancel()
	wg.Wait()
	Must(0, m.Close())
	fmt.Println("gone")
}

func TestManyWaitersTakeFewThreadsAndNoCPU(t *testing.T) {
	needKernelWait(t)
	path := lockPath(t)
	holder := newMutex(t, path)
	holder.Lock()
	p := proc.Start("crowd", path, "500")
	t.Cleanup(p.Kill)
	p.Expect("waiting")
	pid := strconv.Itoa(p.Pid())
	time.Sleep(100 * time.Millisecond)
	if n := threadCount(t, pid); n > 15 {
		t.Errorf("%d threads", n)
	}
	before := switches(t, pid)
	time.Sleep(2 * time.Second)
	if n := switches(t, pid) - before; n > 5 {
		t.Errorf("%d wake-ups in 2 s of waiting", n)
	}
	p.Ask("cancel", "gone")
	if l := kernelLocks(t, path); len(l) != 1 {
		t.Error("more than the holder's lock: ", l)
	}
	holder.Unlock()
}

// switches is how often the threads of a process have gone to sleep.
func switches(t *testing.T, pid string) (n int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/" + pid + "/task/*/status")
	must(t, err)
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for line := range strings.Lines(string(data)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				k, _ := strconv.Atoi(strings.TrimSpace(v))
				n += k
			}
		}
	}
	return n
}

// deaf waits in a program without a handler of SIGURG, the signal that ends waits.
func deaf(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	switch args[1] {
	case "before":
		signal.Ignore()
	case "early": // before the package was initialized
		signal.Ignore()
		runtimeHandler = swapSigaction(nil)
	case "SIG_DFL": // as C code may do, without the Go runtime
		swapSigaction(&sigaction{0})
	case "SIG_IGN":
		swapSigaction(&sigaction{1})
	}
	for i := range 3 {
		ctx, cancel := context.WithCancel(context.Background())
		wait := m.LockContext
		if i == 1 {
			wait = m.RLockContext
		}
		result := make(chan error, 1)
		go func() { result <- wait(ctx) }()
		time.Sleep(20 * time.Millisecond)
		if args[1] == "while" {
			signal.Ignore(syscall.SIGURG)
		}
		cancel()
		fmt.Println(<-result)
		switch args[1] {
		case "while":
			signal.Reset()
		case "SIG_DFL":
			swapSigaction(&sigaction{0})
		case "SIG_IGN":
			swapSigaction(&sigaction{1})
		}
	}
	f := Must(os.Open(args[0]))
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- Lock(ctx, f) }()
	time.Sleep(20 * time.Millisecond)
	if args[1] == "while" {
		signal.Ignore(syscall.SIGURG)
	}
	cancel()
	fmt.Println(<-result)
	fmt.Println(errors.Is(TryLock(f), ErrLocked))
	// Whatever of these waits still stands in the kernel's queue, gives the lock away again.
	bufio.NewReader(os.Stdin).ReadString('\n')
	Must(0, Lock(context.Background(), f))
	Must(0, Unlock(f))
	m.Lock()
	m.Unlock()
	Must(0, m.Close())
	fmt.Println("locked")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func TestCancelWithoutASignalHandler(t *testing.T) {
	for _, when := range []string{"never", "early", "before", "while", "SIG_DFL", "SIG_IGN"} {
		t.Run(when, func(t *testing.T) {
			path := lockPath(t)
			holder := newMutex(t, path)
			holder.Lock()
			p := proc.Start("deaf", path, when)
			t.Cleanup(p.Kill)
			for range 4 {
				p.Expect("context canceled")
			}
			p.Expect("true")
			holder.Unlock()
			p.Ask("", "locked")
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := holder.LockContext(ctx); err != nil {
				t.Fatal("an abandoned wait keeps the lock: ", err)
			}
			holder.Unlock()
			waitFor(t, "the abandoned waits end", func() bool { return len(kernelLocks(t, path)) == 0 })
			must(t, p.Close())
		})
	}
}

// A wait ends with its context though the limit of descriptors (setrlimit(2)) is lower by now than those it uses.
func TestCancelBelowALoweredLimit(t *testing.T) {
	path := lockPath(t)
	holder, m := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	fds := descriptors(t, "self")
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		waiter := start(func() error { return m.LockContext(ctx) })
		pending(t, waiter)
		restore := noDescriptors(t)
		cancel()
		if err := finish(t, waiter); err != context.Canceled {
			t.Error(err)
		}
		restore()
	}
	holder.Unlock()
	m.Lock()
	m.Unlock()
	waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds+2 }) // the gate, and what ends waits
}

// refused locks a file while the system does not allow it to, and prints the errors.
func refused(args []string) {
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

// That a security module denies flock(2) is not taken for a lock that somebody holds.
func TestLockThatIsDenied(t *testing.T) {
	path := lockPath(t)
	if !newMutex(t, path).local {
		t.Skip("on SMB that can mean that somebody holds it")
	}
	p := proc.Start("refused", path)
	t.Cleanup(p.Kill)
	for _, op := range []string{"lock", "lock", "rlock", "lock", "lock"} {
		p.Expect(op + " " + path + ": permission denied")
	}
}

// Whoever has a lease on the file is asked to give it up, and waited for.
func TestFileWithALease(t *testing.T) {
	path := lockPath(t)
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGIO)
	defer signal.Stop(broken)
	for leased, construct := range map[string]func(){
		path:                           func() { newMutex(t, path) },
		path + ".semaphore.gate.lock":  func() { newSemaphore(t, path+".semaphore", 1) },
		path + ".semaphore.queue.lock": func() { newSemaphore(t, path+".semaphore", 1) },
	} {
		must(t, os.WriteFile(leased, nil, 0o600))
		f := Must(os.Open(leased))
		defer f.Close()
		if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
			t.Skip("there are no leases here:", err)
		}
		gone := start(func() error {
			<-broken
			time.Sleep(5 * time.Millisecond)
			_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
			return err
		})
		construct()
		must(t, finish(t, gone))
	}
}

// Two files that change places (renameat2(2)) are noticed at once, as any replacement is.
func TestFilesThatChangePlaces(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	must(t, os.WriteFile(path+".new", nil, 0o600))
	for range 5 {
		settle(m)
		m.Lock() // so that it knows where its file is
		m.Unlock()
		if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".new", unix.RENAME_EXCHANGE); err != nil {
			t.Skip("they cannot here:", err)
		}
		other := newMutex(t, path)
		other.Lock()
		if m.TryLock() {
			t.Fatal("two hold the lock of one path")
		}
		other.Unlock()
	}
}

// What a directory is called need not lead there.
func TestPathsThatOnlyTheKernelKnows(t *testing.T) {
	base := t.TempDir()
	gone := filepath.Join(base, "dir")
	must(t, os.Mkdir(gone, 0o755))
	dir := Must(os.Open(gone))
	defer dir.Close()
	must(t, os.Remove(gone))
	must(t, os.Mkdir(gone+" (deleted)", 0o755)) // as the kernel calls the other one
	path := fmt.Sprintf("/proc/self/fd/%d/lock", dir.Fd())
	if _, err := NewFileRMutex(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if l := listing(t, base); strings.Contains(l, "/lock ") {
		t.Error(l)
	}

	needRoot(t)
	over := filepath.Join(base, "over")
	must(t, os.Mkdir(over, 0o755))
	t.Chdir(over)
	if err := unix.Mount("tmpfs", over, "tmpfs", 0, ""); err != nil {
		t.Skip("cannot mount:", err)
	}
	defer unix.Unmount(over, unix.MNT_DETACH)
	var pathErr *fs.PathError
	if _, err := NewFileRWMutex("lock"); !errors.As(err, &pathErr) || pathErr.Path != "lock" {
		t.Error(err)
	}
	if l := listing(t, over); strings.Contains(l, "/lock ") {
		t.Error(l)
	}
}

// parent takes the lock, starts a child that outlives it, and waits to be killed.
func parent(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	m.Lock()
	child := proc.Command("sleep")
	child.Stdin = os.Stdin
	Must(0, child.Start())
	fmt.Println(child.Process.Pid)
	time.Sleep(time.Hour)
}

func TestChildDoesNotKeepTheLockOfItsParent(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	p := proc.Start("parent", path)
	child, err := strconv.Atoi(p.Expect(""))
	must(t, err)
	waiter := start(func() error { m.Lock(); return nil })
	pending(t, waiter)
	p.Signal(syscall.SIGKILL)
	finish(t, waiter)
	m.Unlock()
	if err := syscall.Kill(child, 0); err != nil {
		t.Error("the child has not outlived its parent: ", err)
	}
	syscall.Kill(child, syscall.SIGKILL)
	p.Kill()
}

func TestTryLockRightAfterUnlockWhileProcessesStart(t *testing.T) {
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := exec.Command("true").Run(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for range 3000 {
		m.Lock()
		m.Unlock()
		if !other.TryLock() {
			t.Error("still locked")
			break
		}
		other.Unlock()
		tmp, err := NewFileRWMutex(path)
		must(t, err)
		tmp.RLock()
		tmp.RUnlock()
		must(t, tmp.Close())
		if !m.TryLock() {
			t.Error("still locked")
			break
		}
		m.Unlock()
	}
	close(stop)
	wg.Wait()
}

func TestConstructorRefuses(t *testing.T) {
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
		t.Errorf("was:\n%s\nis:\n%s", before, after)
	}
}

// listing describes all that is in a directory.
func listing(t *testing.T, dir string) string {
	var s strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&s, path, info.Mode(), info.Size(), info.ModTime())
		return err
	}))
	return s.String()
}

// noDescriptors lets no file be opened until restore is called, or the test ends.
func noDescriptors(t *testing.T) (restore func()) {
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 3
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	restore = func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }
	t.Cleanup(restore)
	return restore
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
	// To wait takes descriptors for the kernel's queue. It works without them.
	holder.Lock()
	waiter := start(func() error { return m.LockContext(t.Context()) })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := m.RLockContext(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
	pending(t, waiter)
	holder.Unlock()
	if err := finish(t, waiter); err != nil {
		t.Fatal(err)
	}
	m.Unlock()
}

// try makes a FileRWMutex, and if that works, locks it.
func try(args []string) {
	m, err := NewFileRWMutex(args[0])
	if err != nil {
		var errno unix.Errno
		errors.As(err, &errno)
		fmt.Println(unix.ErrnoName(errno), err)
		return
	}
	if err := m.TryLockContext(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ok", m.file.writable)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// asNobody starts a process of an unprivileged user.
func asNobody(t *testing.T, name string, args ...string) *proc.Process {
	t.Helper()
	cmd := proc.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	// Where an unprivileged user can run it.
	cmd.Path = filepath.Join("/tmp", fmt.Sprintf("interlock-test-%d", os.Getpid()))
	if _, err := os.Stat(cmd.Path); err != nil {
		self, err := os.ReadFile("/proc/self/exe")
		must(t, err)
		must(t, os.WriteFile(cmd.Path, self, 0o755))
	}
	t.Cleanup(func() { os.Remove(cmd.Path) })
	cmd.Dir = "/"
	p := proc.StartCommand(cmd)
	t.Cleanup(p.Kill)
	return p
}

func needKernelWait(t *testing.T) {
	t.Helper()
	if os.Getenv("INTERLOCK_TEST") == "poll" {
		t.Skip("not with INTERLOCK_TEST=poll")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount and to become another user")
	}
}

func TestPermissions(t *testing.T) {
	needRoot(t)
	dir := openDir(t, 0o755)
	hidden := filepath.Join(dir, "hidden")
	must(t, os.WriteFile(hidden, []byte("precious"), 0o600))
	before := listing(t, dir)
	for _, path := range []string{hidden, filepath.Join(dir, "new")} {
		asNobody(t, "try", path).Expect("EACCES open " + path)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("was:\n%s\nis:\n%s", before, after)
	}

	// In a sticky directory Linux refuses O_CREAT on a file of a third party's.
	sticky := openDir(t, fs.ModeSticky|0o777)
	const knob = "/proc/sys/fs/protected_regular"
	was, err := os.ReadFile(knob)
	must(t, err)
	defer os.WriteFile(knob, was, 0)
	for _, level := range []string{"0", "1", "2"} {
		must(t, os.WriteFile(knob, []byte(level), 0))
		for _, perm := range []fs.FileMode{0o644, 0o666} {
			path := filepath.Join(sticky, fmt.Sprint("lock", level, perm))
			must(t, os.WriteFile(path, nil, perm))
			must(t, os.Chmod(path, perm))
			must(t, os.Chown(path, 12345, 12345)) // neither the opener's nor the directory's
			m := newMutex(t, path)
			p := asNobody(t, "try", path)
			if got, want := p.Expect("ok"), strconv.FormatBool(perm&0o002 != 0); got != want {
				t.Errorf("%s: writable: %s, want %s", path, got, want)
			}
			if m.TryLock() {
				t.Errorf("%s: two holders", path)
			}
			p.Kill()
			m.Lock()
			asNobody(t, "try", path).Expect("lock " + path + ": already locked")
			m.Unlock()
		}
	}
}

// openDir is a directory that other users can reach, if they can reach TMPDIR.
func openDir(t *testing.T, perm fs.FileMode) string {
	t.Helper()
	base := os.TempDir()
	must(t, os.Chmod(base, 0o711)) // it is ours, see TestMain
	for dir := base; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			base = "/tmp"
		}
	}
	dir, err := os.MkdirTemp(base, "interlock-test-*")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, perm))
	return dir
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
			t.Errorf("WithPerm(%v) makes %v, want %v", perm, info.Mode(), want)
		}
	}
}

// A file that is there can be locked where nothing can be written, in the kernel's queue and until
// its holder dies.
func TestReadOnlyFileSystem(t *testing.T) {
	needRoot(t)
	for name, make := range map[string]func(t *testing.T, source string) (dir string){
		"tmpfs": func(t *testing.T, source string) string {
			dir := mount(t, "tmpfs", "tmpfs", 0, "size=1m")
			must(t, os.WriteFile(filepath.Join(dir, "lock"), nil, 0o644))
			must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			return dir
		},
		"bind mount": func(t *testing.T, source string) string {
			dir := mount(t, source, "", unix.MS_BIND, "")
			must(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			return dir
		},
		"squashfs": func(t *testing.T, source string) string {
			image := filepath.Join(t.TempDir(), "image")
			return mountImage(t, image, exec.Command("mksquashfs", source, image, "-quiet", "-no-progress"))
		},
		"erofs": func(t *testing.T, source string) string {
			image := filepath.Join(t.TempDir(), "image")
			return mountImage(t, image, exec.Command("mkfs.erofs", image, source))
		},
	} {
		t.Run(name, func(t *testing.T) {
			source := t.TempDir()
			must(t, os.WriteFile(filepath.Join(source, "lock"), nil, 0o644))
			path := filepath.Join(make(t, source), "lock")
			var pathErr *fs.PathError
			if _, err := NewFileRWMutex(path + "2"); !errors.Is(err, unix.EROFS) || !errors.As(err, &pathErr) {
				t.Error(err)
			}
			m, p := newMutex(t, path), startLocker(t, path)
			if want := len(localFileSystems) > 0; m.local != want && name != "bind mount" {
				t.Errorf("known to be local: %t, want %t", m.local, want)
			}
			m.Lock()
			if h, err := Holders(path); err != nil || len(h) != 1 || h[0].PID != os.Getpid() {
				t.Error(h, err)
			}
			p.Say("lock")
			time.Sleep(moment)
			m.Unlock()
			p.Expect("lock ok")
			if m.TryRLock() {
				t.Error("a reader beside a writer")
			}
			waiter := start(func() error { return m.LockContext(t.Context()) })
			pending(t, waiter)
			p.Kill()
			must(t, finish(t, waiter))
			m.Unlock()
		})
	}
}

// mount mounts a file system for the time of the test.
func mount(t *testing.T, source, fstype string, flags uintptr, data string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount(source, dir, fstype, flags, data); err != nil {
		t.Skipf("cannot mount %s: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// mountImage mounts, for the time of the test, the image that the command makes.
func mountImage(t *testing.T, image string, command *exec.Cmd) string {
	t.Helper()
	dir := t.TempDir()
	for _, cmd := range []*exec.Cmd{command, exec.Command("mount", "-o", "loop", image, dir)} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("%v: %s", err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fsType is the kernel's name of the file system at path.
func fsType(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("findmnt", "-n", "-o", "FSTYPE", "-T", path).Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}

// Whether a file system counts as local is looked at, and what is said of local ones is so.
func TestLocalFileSystems(t *testing.T) {
	dirs := map[string]string{"the temporary directory's": t.TempDir()}
	if os.Getuid() == 0 {
		base := mount(t, "tmpfs", "tmpfs", 0, "")
		dirs["tmpfs"] = base
		for _, d := range []string{"l", "u", "w"} {
			must(t, os.Mkdir(filepath.Join(base, d), 0o755))
		}
		must(t, os.WriteFile(filepath.Join(base, "l", "lock"), nil, 0o644)) // to be copied up
		dirs["overlay"] = mount(t, "overlay", "overlay", 0, fmt.Sprintf("lowerdir=%[1]s/l,upperdir=%[1]s/u,workdir=%[1]s/w", base))
	}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, "lock")
			m, other := newMutex(t, path), newMutex(t, path)
			known := []string{"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay"}
			if fsType := fsType(t, dir); m.local != (localFileSystems != nil && slices.Contains(known, fsType)) {
				t.Fatalf("%s is known to be local: %t", fsType, m.local)
			}
			if !m.local {
				t.Skip("not known to be local")
			}
			m.Lock()
			if err := other.file.takeGate(t.Context(), exclusive, defaultPollInterval); err != nil {
				t.Error("the gate sees the lock: ", err)
			}
			if !m.file.gateTaken(shared) {
				t.Error("the gate is not seen")
			}
			other.file.leaveGate()
			if m.file.gateTaken(exclusive) {
				t.Error("the gate was not left")
			}
			m.Unlock()
			settled := ctimeSettled
			if before, _ := m.file.identity(); before.changed%int64(time.Second) == 0 {
				settled = coarseSettled // as on ext4 with small inodes, or by what qemu tells a program for s390x
			}
			time.Sleep(settled)
			if !m.file.marked {
				return
			}
			settle(m)
			if m.file.knownAt == never {
				t.Error("the ctime does not settle")
			}
			before, _ := m.file.identity()
			must(t, os.Rename(path, path+".old"))
			after, _ := m.file.identity()
			if before.changed == after.changed {
				t.Error("a rename does not change the ctime")
			}
			time.Sleep(settled)
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".old", unix.RENAME_EXCHANGE))
			if before, after = after, Must(m.file.identity()); before.changed == after.changed {
				t.Error("an exchange does not change the ctime")
			}
		})
	}
}

func TestFlockCommandTakesPart(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	flock := func(args ...string) *exec.Cmd { return exec.Command("flock", args...) }

	m.Lock()
	if flock("-n", path, "true").Run() == nil || flock("-n", "-s", path, "true").Run() == nil {
		t.Error("flock(1) enters beside a writer")
	}
	waiting := flock(path, "true")
	must(t, waiting.Start())
	done := start(waiting.Wait)
	pending(t, done)
	m.Unlock()
	must(t, finish(t, done))

	m.RLock()
	if flock("-n", path, "true").Run() == nil {
		t.Error("flock(1) writes beside a reader")
	}
	must(t, flock("-n", "-s", path, "true").Run())
	m.RUnlock()

	for _, mode := range []string{"-x", "-s"} {
		holder := flock(mode, path, "sh", "-c", "echo; read x")
		in, _ := holder.StdinPipe()
		out, _ := holder.StdoutPipe()
		must(t, holder.Start())
		out.Read(make([]byte, 1))
		if m.TryLock() {
			t.Error("a writer beside flock(1) ", mode)
		}
		if m.TryRLock() != (mode == "-s") {
			t.Error("wrong about a reader beside flock(1) ", mode)
		} else if mode == "-s" {
			m.RUnlock()
		}
		writer := start(func() error { return m.LockContext(t.Context()) })
		pending(t, writer)
		fmt.Fprintln(in)
		must(t, finish(t, writer))
		m.Unlock()
		must(t, holder.Wait())
	}
}

// Where the kernel has no place for us, the poller waits.
func TestWaitingWithoutTheKernel(t *testing.T) {
	needKernelWait(t)
	if !waits.TryAcquire(maxWaits) {
		t.Fatal("somebody waits")
	}
	defer waits.Release(maxWaits)
	path := lockPath(t)
	m, p := newMutex(t, path, WithPollInterval(time.Millisecond, 2*time.Millisecond)), startLocker(t, path)
	for _, wait := range []func() error{
		func() error { m.Lock(); return nil },
		func() error { return m.LockContext(t.Context()) },
	} {
		p.Ask("lock", "lock ok")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		if err := m.LockContext(ctx); err != context.DeadlineExceeded {
			t.Error(err)
		}
		cancel()
		waiter := start(wait)
		pending(t, waiter)
		p.Ask("unlock", "unlock ok")
		must(t, finish(t, waiter))
		m.Unlock()
	}
	p.Ask("lock", "lock ok")
	waiter := start(func() error { m.Lock(); return nil })
	pending(t, waiter)
	must(t, os.Remove(path))
	p.Ask("trylock", "trylock lock") // it holds the old file
	must(t, finish(t, waiter))       // the new one is free
	m.Unlock()
}

// asRemote makes the files that are opened from now on count as remote.
func asRemote(t *testing.T) {
	list := localFileSystems
	localFileSystems = nil
	t.Cleanup(func() { localFileSystems = list })
}

// localAndRemote runs a test on files that count as local, unless INTERLOCK_TEST says otherwise, and as remote.
func localAndRemote(t *testing.T, test func(t *testing.T)) {
	t.Run("local", test)
	t.Run("remote", func(t *testing.T) {
		asRemote(t)
		test(t)
	})
}

// breakUnlock makes flock(2) calls on f fail, those that unlock too.
func breakUnlock(t *testing.T, f *lockFile) {
	fd, err := open("/", unix.O_PATH, 0)
	must(t, err)
	must(t, unix.Dup3(fd, f.fd, unix.O_CLOEXEC))
	unix.Close(fd)
}

// A file that cannot be unlocked is closed instead, and nobody is left waiting, not even a writer
// that stands at its gate.
func TestUnlockFails(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		m, other := newMutex(t, path), newMutex(t, path)
		m.Lock()
		breakUnlock(t, m.file)
		m.Unlock()
		m.RLock()
		writer := start(func() error { return m.LockContext(t.Context()) })
		waitFor(t, "a writer at the gate", func() bool { return gated(m) })
		time.Sleep(time.Millisecond)
		breakUnlock(t, m.file)
		m.RUnlock()
		must(t, finish(t, writer))
		m.Unlock()
		if gated(m) {
			t.Error("somebody stands at the gate")
		}
		m.Lock()
		breakUnlock(t, m.file)
		m.Unlock()
		other.Lock()
		other.Unlock()
	})
}

func TestTryIsExactOnARemoteFileSystem(t *testing.T) {
	asRemote(t)
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	for range 50 { // no trace is left of who had to wait
		other.Lock()
		waiter := start(func() error { return m.LockContext(t.Context()) })
		waitFor(t, "a waiter at the gate", func() bool { return gated(m) })
		other.Unlock()
		must(t, finish(t, waiter))
		m.Unlock()
		if !m.TryLock() {
			t.Fatal("TryLock fails on a free lock")
		}
		m.Unlock()
	}
	hammer(t, 3, 100, func(int) { // readers are not in each other's way
		if !m.TryRLock() {
			t.Error("TryRLock fails among readers")
			return
		}
		time.Sleep(60 * time.Microsecond) // until the next asks anew
		m.RUnlock()
	})
	n := 0
	hammer(t, 4, 100, func(i int) {
		if m.TryLock() {
			n++
			m.Unlock()
		}
	})
	t.Logf("%d of 400 tries", n)
}

// A lock is not handed on within a process when its file was replaced a while ago.
func TestNotHandedOnWithAReplacedFile(t *testing.T) {
	for range 30 {
		path := lockPath(t)
		m := newMutex(t, path)
		settle(m)
		m.Lock()
		var waiters []<-chan error
		for i := range 2 {
			waiters = append(waiters, start(func() error { return m.LockContext(t.Context()) }))
			waitFor(t, "waiters", func() bool { return queued(m) == i+1 })
		}
		m.Unlock()
		must(t, finish(t, waiters[0]))
		next, err := open(path+".new", unix.O_CREAT|unix.O_RDWR, 0o600)
		must(t, err)
		must(t, unix.Flock(next, unix.LOCK_EX))
		must(t, os.Rename(path+".new", path))
		time.Sleep(2 * checkInterval)
		m.mu.Lock()
		m.taken = clock() // a moment ago, or that alone would be a reason
		m.mu.Unlock()
		m.Unlock()
		select {
		case <-waiters[1]:
			t.Fatal("two holders")
		case <-time.After(time.Millisecond):
		}
		unix.Close(next)
		must(t, finish(t, waiters[1]))
		m.Unlock()
	}
}

// Where ctimes are whole seconds, a rename is noticed all the same.
func TestCoarseTimes(t *testing.T) {
	needRoot(t)
	image := filepath.Join(t.TempDir(), "image")
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 16<<20))
	dir := mountImage(t, image, exec.Command("mkfs.ext4", "-q", "-I", "128", image))
	path := filepath.Join(dir, "lock")
	m, err := NewFileRWMutex(path)
	must(t, err)
	defer m.Close()
	for time.Now().Nanosecond() > 300e6 { // so that all happens in one second
		time.Sleep(10 * time.Millisecond)
	}
	must(t, os.Chmod(path, 0o600))
	settle(m)
	must(t, os.Rename(path, path+".old"))
	other, err := NewFileRWMutex(path)
	must(t, err)
	defer other.Close()
	other.Lock()
	if m.TryLock() {
		t.Error("two holders")
	}
	other.Unlock()
}

// A wait ends although its thread has been told to block the signal that ends it.
func TestCancelOnAThreadThatBlocksTheSignal(t *testing.T) {
	path := lockPath(t)
	holder, m := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	defer holder.Unlock()
	wait := start(func() error {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var urgent, was unix.Sigset_t
		urgent.Val[0] = 1 << (unix.SIGURG - 1)
		must(t, unix.PthreadSigmask(unix.SIG_BLOCK, &urgent, nil))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		err := m.LockContext(ctx)
		if unix.PthreadSigmask(unix.SIG_BLOCK, nil, &was); was.Val[0] != urgent.Val[0] {
			t.Error("the thread's mask was changed")
		}
		return err
	})
	if err := finish(t, wait); err != context.DeadlineExceeded {
		t.Error(err)
	}
}

// Readers are in nobody's way who tries to read.
func TestTryRLockAmongReaders(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		m := newMutex(t, lockPath(t))
		hammer(t, 3, 1000, func(i int) {
			if i == 0 {
				m.RLock()
			} else if !m.TryRLock() {
				t.Error("refused")
				return
			}
			m.RUnlock()
		})
	})
}

// A reader who could not take the gate notices all the same that nobody waits there any more.
func TestReaderWithoutAGateIsNotForgotten(t *testing.T) {
	path := lockPath(t)
	m, foreign := newMutex(t, path), newMutex(t, path)
	if !m.local {
		t.Skip("without descriptors, a gate beside the file cannot be seen either")
	}
	m.RLock()
	ctx, cancel := context.WithCancel(t.Context())
	writer := start(func() error { return foreign.LockContext(ctx) })
	waitFor(t, "a writer at the gate", func() bool { return gated(m) })
	time.Sleep(time.Millisecond) // what m remembers
	restore := noDescriptors(t)
	reader := start(func() error { m.RLock(); return nil })
	pending(t, reader)
	restore()
	cancel()
	if err := finish(t, writer); err != context.Canceled {
		t.Error(err)
	}
	must(t, finish(t, reader))
	m.RUnlock()
	m.RUnlock()
}

func TestCloseOfAnOpenFileEndsTheLockThatItWaitedFor(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		for range 30 {
			f, g := openTwice(t)
			must(t, Lock(t.Context(), f))
			waiter := start(func() error {
				if err := Lock(t.Context(), g); err != nil {
					return err
				}
				g.Close()
				return TryLock(f)
			})
			time.Sleep(time.Millisecond)
			must(t, Unlock(f))
			must(t, finish(t, waiter))
		}
	})
}

// A call that was cancelled just as it was granted has given the lock back when it returns.
func TestCancelledGrantIsGivenBack(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		holder := newMutex(t, path)
		for range 100 {
			m, err := NewFileRWMutex(path)
			must(t, err)
			holder.Lock()
			ctx, cancel := context.WithCancel(t.Context())
			first := start(func() error { m.RLock(); cancel(); m.RUnlock(); return nil })
			waitFor(t, "a waiter", func() bool { return queued(m) == 1 })
			second := start(func() error { return m.RLockContext(ctx) })
			waitFor(t, "two waiters", func() bool { return queued(m) == 2 })
			holder.Unlock()
			must(t, finish(t, first))
			if finish(t, second) == nil {
				m.RUnlock()
			}
			must(t, m.Close())
		}
	})
}

// A try does not wait for somebody who has to wait himself.
func TestTryBehindAWaitingReader(t *testing.T) {
	asRemote(t)
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	other.Lock()
	defer other.Unlock()
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		reader := start(func() error { return m.RLockContext(ctx) })
		try := start(func() error { return m.TryRLockContext(t.Context()) })
		if err := finish(t, try); !errors.Is(err, ErrLocked) {
			t.Error(err)
		}
		cancel()
		if err := finish(t, reader); err != context.Canceled {
			t.Error(err)
		}
	}
}
