//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() {
	children["keeper"] = keeper
	children["forgotten"] = forgotten
	children["parent"] = parent
	children["sleep"] = func([]string) { bufio.NewReader(os.Stdin).ReadString('\n') }
}

func TestReadersShareOneKernelLock(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	for range 10 {
		m.RLock()
	}
	if l := kernelLocks(t, path); len(l) != 1 || l[0].Kind != "FLOCK" || !l[0].Shared {
		t.Errorf("the locks are %+v, want one for reading", l)
	}
	for range 10 {
		m.RUnlock()
	}
	if l := kernelLocks(t, path); len(l) != 0 {
		t.Errorf("the locks are %+v, want none", l)
	}
}

// parent locks, starts a child that outlives it, and waits until it is killed.
func parent(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	m.Lock()
	child := proc.Command("sleep")
	child.Stdin = os.Stdin
	Must(0, child.Start())
	fmt.Println(child.Process.Pid)
	time.Sleep(time.Hour)
}

func TestChildDoesNotKeepLockOfItsParent(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	p := proc.Start("parent", path)
	child, err := strconv.Atoi(p.Expect(""))
	must(t, err)
	waiter := locking(t.Context(), m)
	pending(t, waiter)
	p.Signal(syscall.SIGKILL)
	must(t, finish(t, waiter))
	m.Unlock()
	if err := syscall.Kill(child, 0); err != nil {
		t.Error("the child did not outlive its parent:", err)
	}
	syscall.Kill(child, syscall.SIGKILL)
	p.Kill()
}

// whileProcessesStart calls f while other goroutines start processes. Between
// fork and exec, a child has a copy of every descriptor.
func whileProcessesStart(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				if err := exec.Command("true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	defer wg.Wait()
	defer cancel()
	f()
}

func TestTryLockRightAfterUnlockWhileProcessesStart(t *testing.T) {
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	whileProcessesStart(t, func() {
		for range rounds(1500) {
			m.Lock()
			m.Unlock()
			if !other.TryLock() {
				t.Fatal("the lock is not free after Unlock")
			}
			other.Unlock()
			tmp, err := NewFileRWMutex(path)
			must(t, err)
			tmp.RLock()
			tmp.RUnlock()
			must(t, tmp.Close())
			if !m.TryLock() {
				t.Fatal("the lock is not free after Close")
			}
			m.Unlock()
		}
	})
}

func TestFlockCommandTakesPart(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	flock := func(args ...string) *exec.Cmd { return exec.Command("flock", args...) }

	m.Lock()
	if flock("-n", path, "true").Run() == nil || flock("-n", "-s", path, "true").Run() == nil {
		t.Error("flock(1) holds the lock beside a writer")
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
			t.Error("a writer holds the lock beside flock(1)", mode)
		}
		if m.TryRLock() != (mode == "-s") {
			t.Error("TryRLock is wrong beside flock(1)", mode)
		} else if mode == "-s" {
			m.RUnlock()
		}
		writer := locking(t.Context(), m)
		pending(t, writer)
		fmt.Fprintln(in)
		must(t, finish(t, writer))
		m.Unlock()
		must(t, holder.Wait())
	}
}

// Two files that change places (renameat2(2)) are noticed at once, like any
// other replacement.
func TestExchangedFileIsNoticed(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	must(t, os.WriteFile(path+".new", nil, 0o600))
	for range 5 {
		settle(m)
		m.Lock() // so that m knows that its file is at the path
		m.Unlock()
		if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".new", unix.RENAME_EXCHANGE); err != nil {
			t.Skip("files cannot be exchanged here:", err)
		}
		other := newMutex(t, path)
		other.Lock()
		if m.TryLock() {
			t.Fatal("two locks are held for one path")
		}
		other.Unlock()
	}
}

// A lock is not handed on within a process after its file was replaced.
func TestLockOfReplacedFileIsNotHandedOn(t *testing.T) {
	for range rounds(30) {
		path := lockPath(t)
		m := newMutex(t, path)
		settle(m)
		m.Lock()
		var waiters []<-chan error
		for i := range 2 {
			waiters = append(waiters, locking(t.Context(), m))
			waitFor(t, "goroutines wait", func() bool { return waitersOf(m) == i+1 })
		}
		m.Unlock()
		must(t, finish(t, waiters[0]))
		next, err := open(path+".new", unix.O_CREAT|unix.O_RDWR, 0o600)
		must(t, err)
		must(t, unix.Flock(next, unix.LOCK_EX))
		must(t, os.Rename(path+".new", path))
		time.Sleep(2 * checkInterval)
		m.mu.Lock()
		m.file.lockedAt = clock() // otherwise its age alone would be a reason
		m.mu.Unlock()
		m.Unlock()
		select {
		case <-waiters[1]:
			t.Fatal("two locks are held for one path")
		case <-time.After(time.Millisecond):
		}
		unix.Close(next)
		must(t, finish(t, waiters[1]))
		m.Unlock()
	}
}

// breakUnlock makes flock(2) calls on the file fail, also those that unlock it.
func breakUnlock(t *testing.T, f *lockFile) {
	t.Helper()
	breakLocks(t, f.file)
}

// breakLocks makes all calls fail that lock or unlock the file.
func breakLocks(t *testing.T, f *sysFile) {
	t.Helper()
	fd, err := open("/", unix.O_PATH, 0)
	must(t, err)
	must(t, unix.Dup3(fd, f.fd, unix.O_CLOEXEC))
	unix.Close(fd)
}

// A file that cannot be unlocked is closed, which releases the lock, and all
// waiters go on, even a writer that stands at the gate.
func TestFileThatCannotBeUnlockedIsClosed(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		m, other := newMutex(t, path), newMutex(t, path)
		m.Lock()
		breakUnlock(t, m.file)
		m.Unlock()
		m.RLock()
		writer := locking(t.Context(), m)
		waitForWriter(t, m)
		time.Sleep(time.Millisecond)
		breakUnlock(t, m.file)
		m.RUnlock()
		must(t, finish(t, writer))
		m.Unlock()
		if gated(m) {
			t.Error("a writer still stands at the gate")
		}
		m.Lock()
		breakUnlock(t, m.file)
		m.Unlock()
		other.Lock()
		other.Unlock()
	})
}

// keeper locks, and unlocks although the system refuses to unlock the file.
func keeper(args []string) {
	m := Must(NewFileRWMutex(args[0]))
	m.Lock()
	refused := panicOf(func() { proc.Refuse(unix.SYS_FLOCK, unix.EIO, m.file.file.fd) })
	if refused != nil {
		fmt.Println("cannot:", refused)
		return
	}
	m.Unlock()
	fmt.Println("unlocked")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// forgotten locks although a file server no longer knows the open file.
func forgotten(args []string) {
	spare := Must(os.Open("/")) // so that the file gets another number when it is opened again
	m := Must(NewFileRWMutex(args[0]))
	proc.Refuse(unix.SYS_FLOCK, unix.ESTALE, m.file.file.fd)
	fmt.Println("refused")
	spare.Close()
	m.Lock()
	fmt.Println("locked")
}

func TestForgottenFileIsOpenedAgain(t *testing.T) {
	path := lockPath(t)
	p := proc.Start("forgotten", path)
	t.Cleanup(p.Kill)
	if line, _ := p.Line(patience); line != "refused" {
		t.Skip("no system call can be refused")
	}
	p.Expect("locked")
}

// If the system refuses to unlock the file, closing the file releases the lock.
func TestRefusedUnlockReleasesLock(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	p := proc.Start("keeper", path)
	t.Cleanup(p.Kill)
	switch line, _ := p.Line(patience); {
	case strings.HasPrefix(line, "cannot: "): // for example under qemu
		t.Skip("no system call can be refused:", line)
	case line != "unlocked":
		t.Fatalf("the process printed %q, want \"unlocked\"", line)
	}
	if !m.TryLock() {
		t.Fatal("the lock is still held")
	}
	m.Unlock()
}

func TestTryRLockSucceedsAmongReaders(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		m := newMutex(t, lockPath(t))
		hammer(t, 3, 1000, func(i int) {
			if i == 0 {
				m.RLock()
			} else if !m.TryRLock() {
				t.Error("TryRLock failed among readers")
				return
			}
			m.RUnlock()
		})
	})
}

// On a remote file system a lock that is free can be acquired by a try, even
// right after a process had to wait for it.
func TestTryIsExactOnRemoteFileSystem(t *testing.T) {
	asRemote(t)
	path := lockPath(t)
	m, other := newMutex(t, path), newMutex(t, path)
	for range 50 {
		other.Lock()
		waiter := locking(t.Context(), m)
		waitForWriter(t, m)
		other.Unlock()
		must(t, finish(t, waiter))
		m.Unlock()
		if !m.TryLock() {
			t.Fatal("TryLock failed on a free lock")
		}
		m.Unlock()
	}
	hammer(t, 3, 100, func(int) {
		if !m.TryRLock() {
			t.Error("TryRLock failed among readers")
			return
		}
		time.Sleep(checkInterval + 10*time.Microsecond) // so that the next caller asks for waiters again
		m.RUnlock()
	})
	n := 0
	hammer(t, 4, 100, func(i int) {
		if m.TryLock() {
			n++
			m.Unlock()
		}
	})
	t.Logf("%d of 400 TryLock calls succeeded", n)
}

// A try does not wait for a goroutine that has to wait itself.
func TestTryIsRefusedBehindWaiter(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		m, other := newMutex(t, path), newMutex(t, path)
		other.Lock()
		defer other.Unlock()
		for range 100 {
			ctx, cancel := context.WithCancel(t.Context())
			reader := rlocking(ctx, m)
			try := start(func() error { return m.TryRLockContext(t.Context()) })
			if err := finish(t, try); !errors.Is(err, ErrLocked) {
				t.Error(err)
			}
			cancel()
			if err := finish(t, reader); err != context.Canceled {
				t.Error(err)
			}
		}
	})
}

// A reader that cannot stand at the gate behind a writer of another process
// notices when that writer gives up. Without descriptors, it polls by its only
// descriptor until it can stand there. If that does not work either, it looks
// again now and then.
func TestReaderWithoutGateNoticesThatWriterGivesUp(t *testing.T) {
	for why, prepare := range map[string]func(t *testing.T, f *lockFile) (restore func()){
		"no descriptors": func(t *testing.T, f *lockFile) func() { return noDescriptors(t) },
		"broken gate": func(t *testing.T, f *lockFile) func() {
			must(t, f.prepareGate(t.Context()))
			breakLocks(t, f.gate.file)
			return func() {}
		},
	} {
		t.Run(why, func(t *testing.T) {
			path := lockPath(t)
			m, other := newMutex(t, path), newMutex(t, path)
			if !local(m) {
				t.Skip("without descriptors, a sibling file cannot be seen either")
			}
			m.RLock()
			ctx, cancel := context.WithCancel(t.Context())
			writer := locking(ctx, other)
			waitForWriter(t, m)
			time.Sleep(time.Millisecond) // m remembers for a moment that there was no writer
			restore := prepare(t, m.file)
			reader := rlocking(t.Context(), m)
			pending(t, reader)
			restore()
			cancel()
			if err := finish(t, writer); err != context.Canceled {
				t.Error(err)
			}
			must(t, finish(t, reader))
			m.RUnlock()
			m.RUnlock()
		})
	}
}

// A reader that waits because the file was moved away joins the readers of its
// process once the file is back.
func TestReaderNoticesThatFileIsBack(t *testing.T) {
	localAndRemote(t, func(t *testing.T) {
		path := lockPath(t)
		m := newMutex(t, path)
		m.RLock()
		must(t, os.Rename(path, path+".old"))
		time.Sleep(2 * pathCheckInterval)
		reader := rlocking(t.Context(), m)
		pending(t, reader)
		must(t, os.Rename(path+".old", path))
		must(t, finish(t, reader))
		m.RUnlock()
		m.RUnlock()
	})
}

// Without descriptors a writer cannot open the gate. It stops readers all the
// same.
func TestWriterWithoutDescriptorsStopsReaders(t *testing.T) {
	path := lockPath(t)
	m, reader := newMutex(t, path), newMutex(t, path)
	if !local(m) {
		t.Skip("a sibling file cannot be opened")
	}
	probe := lockFileAt(t, path)
	reader.RLock()
	restore := noDescriptors(t)
	writer := locking(t.Context(), m)
	waitFor(t, "a writer stands at the gate", func() bool { return taken(probe, shared) })
	reader.RUnlock()
	must(t, finish(t, writer))
	restore()
	m.Unlock()
	if gated(m) {
		t.Error("a writer still stands at the gate")
	}
}
