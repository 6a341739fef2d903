package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

func init() {
	children["unshared"] = unshared
	children["chrooted"] = chrooted
}

const allNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET

// inNamespaces makes the command run in namespaces of its own. In its own user
// namespace it is root.
func inNamespaces(cmd *exec.Cmd, flags uintptr) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
}

// unshared runs a function in a process with namespaces of its own. That
// process ends with this one.
func unshared(args []string) {
	runtime.LockOSThread() // if this thread ended, so would the process
	cmd := proc.Command(args[0], args[1:]...)
	inNamespaces(cmd, allNamespaces)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	if err := cmd.Start(); err != nil {
		fmt.Println("refused", err)
		return
	}
	interlock.Must(0, cmd.Wait())
}

// chrooted runs a function in this process, which then sees only one directory.
func chrooted(args []string) {
	interlock.Must(0, unix.Chroot(args[0]))
	interlock.Must(0, os.Chdir("/"))
	children[args[1]](args[2:])
}

// A starter starts a process that runs the named function, whose first argument
// is a path.
type starter func(t *testing.T, name string, args ...string) *proc.Process

// starterIn returns a starter for processes in namespaces of their own.
func starterIn(flags uintptr) starter {
	return func(t *testing.T, name string, args ...string) *proc.Process {
		try := exec.Command("true")
		inNamespaces(try, flags)
		if err := try.Run(); err != nil {
			need.Skip(t, "namespaces are not permitted here:", err)
		}
		cmd := proc.Command(name, args...)
		inNamespaces(cmd, flags)
		cmd.SysProcAttr.Pdeathsig = 0 // the thread that starts the process may end at any time
		p := proc.StartCommand(cmd)
		t.Cleanup(p.Kill)
		return p
	}
}

// startUnprivileged starts a process in namespaces that an unprivileged user
// made.
func startUnprivileged(t *testing.T, name string, args ...string) *proc.Process {
	kit.NeedRoot(t)
	return kit.AsNobody(t, "unshared", append([]string{name}, args...)...)
}

// startChrooted starts a process that sees only the directory of the path.
func startChrooted(t *testing.T, name string, args ...string) *proc.Process {
	kit.NeedRoot(t)
	dir := filepath.Dir(args[0])
	args[0] = "/" + filepath.Base(args[0])
	p := proc.Start("chrooted", append([]string{dir, name}, args...)...)
	t.Cleanup(p.Kill)
	return p
}

// In namespaces and below chroot(2), a lock excludes, a wait can be canceled,
// and a killed holder releases what it held.
func TestLocksAcrossNamespaces(t *testing.T) {
	starters := map[string]starter{
		"pid":               starterIn(unix.CLONE_NEWPID),
		"mount":             starterIn(unix.CLONE_NEWNS),
		"user":              starterIn(unix.CLONE_NEWUSER),
		"all":               starterIn(allNamespaces),
		"unprivileged user": startUnprivileged,
		"chroot":            startChrooted,
	}
	localAndRemote(t, func(t *testing.T, dir string) {
		for kind, startIn := range starters {
			start := func(t *testing.T, name string, args ...string) *proc.Process {
				t.Helper()
				p := startIn(t, name, args...)
				switch line, _ := p.Line(kit.Patience); {
				case strings.HasPrefix(line, "refused "): // by unshared
					need.Skip(t, "namespaces are not permitted here:", line)
				case line != "ready":
					t.Fatalf("the process printed %q, want \"ready\"", line)
				}
				return p
			}
			dir := filepath.Join(dir, kind)
			kit.Must(t, os.Mkdir(dir, 0o700))
			kit.Must(t, os.Chmod(dir, 0o777)) // despite the umask
			t.Run(kind+"/mutex", func(t *testing.T) { testMutexAcross(t, filepath.Join(dir, "lock"), start) })
			t.Run(kind+"/semaphore", func(t *testing.T) { testSemaphoreAcross(t, filepath.Join(dir, "sem"), start) })
		}
	})
}

// testMutexAcross tests a lock between this process and others.
func testMutexAcross(t *testing.T, path string, start starter) {
	kit.Must(t, os.WriteFile(path, nil, 0o666))
	kit.Must(t, os.Chmod(path, 0o666))
	m := newMutex(t, path)
	p, q := start(t, "locker", path), start(t, "locker", path)

	m.Lock()
	p.Ask("trylock", "trylock lock")
	p.Say("lock")
	time.Sleep(kit.Moment)
	p.Ask("cancel", "lock context canceled")
	p.Say("lock")
	time.Sleep(kit.Moment)
	m.Unlock()
	p.Expect("lock ok")
	if m.TryRLock() {
		t.Error("the lock has two holders")
	}
	q.Ask("tryrlock", "tryrlock rlock")
	p.Kill()
	q.Ask("lock", "lock ok")
	waiter := locking(t.Context(), m)
	kit.Pending(t, waiter)
	q.Kill()
	kit.Must(t, kit.Finish(t, waiter))
	m.Unlock()
}

// testSemaphoreAcross tests a semaphore between this process and another.
func testSemaphoreAcross(t *testing.T, name string, start starter) {
	s := newSemaphore(t, name, 2, interlock.WithPerm(0o666))
	p := start(t, "acquirer", name, "2")
	p.Ask("acquire 1", "acquire 1 ok")
	wantTry(t, s, 2, false)
	waiter := acquiring(t.Context(), s, 2)
	kit.Pending(t, waiter)
	p.Kill()
	kit.Must(t, kit.Finish(t, waiter))
	s.Release(2)
}
