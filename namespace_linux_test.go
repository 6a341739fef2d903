//go:build !interlock_bsd

package interlock

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() {
	children["unshared"] = unshared
	children["chrooted"] = chrooted
}

// inNamespaces makes a command run in namespaces of its own, in that of users as root.
func inNamespaces(cmd *exec.Cmd, flags uintptr) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
}

func locking(m *FileRWMutex) <-chan error { return start(func() error { m.Lock(); return nil }) }

const allNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWNET

// unshared runs a child in namespaces of its own, which ends with it.
func unshared(args []string) {
	runtime.LockOSThread() // whose end would be the child's
	cmd := proc.Command(args[0], args[1:]...)
	inNamespaces(cmd, allNamespaces)
	cmd.Stdin, cmd.Stdout = os.Stdin, os.Stdout
	if err := cmd.Start(); err != nil {
		fmt.Println("refused", err)
		return
	}
	Must(0, cmd.Wait())
}

// chrooted runs a child that sees only what is in a directory.
func chrooted(args []string) {
	Must(0, unix.Chroot(args[0]))
	Must(0, os.Chdir("/"))
	children[args[1]](args[2:])
}

// Locks are kept, waited for, given up and freed by kills across namespaces.
func TestNamespaces(t *testing.T) {
	in := func(flags uintptr) func(t *testing.T, name string, args ...string) *proc.Process {
		return func(t *testing.T, name string, args ...string) *proc.Process {
			try := exec.Command("true")
			inNamespaces(try, flags)
			if err := try.Run(); err != nil {
				t.Skip("not permitted here: ", err)
			}
			cmd := proc.Command(name, args...)
			inNamespaces(cmd, flags)
			cmd.SysProcAttr.Pdeathsig = 0 // the thread that starts it may end any time
			p := proc.StartCommand(cmd)
			t.Cleanup(p.Kill)
			return p
		}
	}
	for kind, startIn := range map[string]func(t *testing.T, name string, args ...string) *proc.Process{
		"pid":   in(unix.CLONE_NEWPID),
		"mount": in(unix.CLONE_NEWNS),
		"user":  in(unix.CLONE_NEWUSER),
		"all":   in(allNamespaces),
		"all, by an unprivileged user": func(t *testing.T, name string, args ...string) *proc.Process {
			needRoot(t)
			return asNobody(t, "unshared", append([]string{name}, args...)...)
		},
		"chroot": func(t *testing.T, name string, args ...string) *proc.Process {
			needRoot(t)
			dir := filepath.Dir(args[0])
			args[0] = "/" + filepath.Base(args[0])
			p := proc.Start("chrooted", append([]string{dir, name}, args...)...)
			t.Cleanup(p.Kill)
			return p
		},
	} {
		t.Run(kind, func(t *testing.T) {
			dir := openDir(t, 0o777)
			path := filepath.Join(dir, "lock")
			start := func(name string, args ...string) *proc.Process {
				t.Helper()
				p := startIn(t, name, args...)
				if line, _ := p.Line(patience); line != "ready" {
					t.Skip("not permitted here: ", line)
				}
				return p
			}
			must(t, os.WriteFile(path, nil, 0o666))
			must(t, os.Chmod(path, 0o666))
			m := newMutex(t, path)
			p, q := start("locker", path), start("locker", path)

			m.Lock()
			p.Ask("trylock", "trylock lock")
			p.Say("lock")
			time.Sleep(moment)
			p.Ask("cancel", "lock context canceled")
			p.Say("lock")
			time.Sleep(moment)
			m.Unlock()
			p.Expect("lock ok")
			if m.TryRLock() {
				t.Error("two holders")
			}
			q.Ask("tryrlock", "tryrlock rlock")
			p.Kill()
			q.Ask("lock", "lock ok")
			waiter := locking(m)
			pending(t, waiter)
			q.Kill()
			must(t, finish(t, waiter))
			m.Unlock()

			s, err := NewFileSemaphore(filepath.Join(dir, "sem"), 2, WithPerm(0o666))
			must(t, err)
			defer s.Close()
			p = start("acquirer", filepath.Join(dir, "sem"), "2")
			p.Ask("acquire 1", "acquire 1 ok")
			wantTry(t, s, 2, false)
			units := acquiring(t.Context(), s, 2)
			pending(t, units)
			p.Kill()
			must(t, finish(t, units))
			s.Release(2)
		})
	}
}
