//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

func init() {
	children["agent"] = agent
	children["remote"] = remote
}

// agent starts processes for remote, and kills them when that has ended.
func agent(args []string) {
	l := Must(net.Listen("tcp", args[0]))
	fmt.Println("agent ready")
	for {
		conn := Must(l.Accept())
		go func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			var args []string
			line, _ := in.ReadBytes('\n')
			if json.Unmarshal(line, &args) != nil {
				return
			}
			cmd := proc.Command(args[0], args[1:]...)
			stdin := Must(cmd.StdinPipe())
			cmd.Stdout = conn
			Must(0, cmd.Start())
			go func() {
				io.Copy(stdin, in)
				cmd.Process.Kill()
			}()
			cmd.Wait()
		}()
	}
}

// remote is a process that the agent of another machine runs.
func remote(args []string) {
	conn := Must(net.Dial("tcp", args[0]))
	Must(0, json.NewEncoder(conn).Encode(args[1:]))
	go func() {
		io.Copy(conn, os.Stdin)
		os.Exit(0)
	}()
	io.Copy(os.Stdout, conn)
}

// The guests of .ci/nfs: this is the first client.
const otherClient, nfsServer = "10.77.0.3:7000", "10.77.0.1:7000"

var nfsVersions = []string{"3", "4.0", "4.2"}

func startRemote(t testing.TB, machine, name string, args ...string) *proc.Process {
	t.Helper()
	p := proc.Start("remote", append([]string{machine, name}, args...)...)
	t.Cleanup(p.Kill)
	return p
}

// farLocker is a locker on the other client.
func farLocker(t testing.TB, path string) *proc.Process {
	t.Helper()
	p := startRemote(t, otherClient, "locker", path)
	p.Expect("ready")
	return p
}

// shell runs a command on another machine.
func shell(t testing.TB, machine, command string) {
	t.Helper()
	p := startRemote(t, machine, "shell", command)
	for {
		line, ok := p.Line(patience)
		switch {
		case !ok:
			t.Fatalf("%s: no end of: %s", machine, command)
		case line == "shell ends: <nil>":
			return
		case strings.HasPrefix(line, "shell ends: "):
			t.Fatalf("%s: %s: %s", machine, command, line)
		}
		t.Log(line)
	}
}

// onNFS runs a test for each version, all of them at once, in a directory that both clients have.
func onNFS(t *testing.T, test func(t *testing.T, version, dir string)) {
	if os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("needs the machines that make test-nfs starts")
	}
	for _, v := range nfsVersions {
		t.Run("v"+v, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("/mnt/v"+v, "test-*")
			must(t, err)
			test(t, v, dir)
		})
	}
}

// took logs how long a call took, and fails if that was far more than it takes on a busy machine.
func took(t *testing.T, what string, limit time.Duration, call func()) {
	t.Helper()
	begin := time.Now()
	call()
	d := time.Since(begin)
	t.Logf("%s: %v", what, d.Round(time.Millisecond))
	if d > limit {
		t.Errorf("%s took more than %v", what, limit)
	}
}

// alone fails if somebody else, anywhere, is in the same of n rooms. Directories are made at the server, and
// no cache is in between.
func alone(rooms string, n int) (leave func(), err error) {
	for i := range n {
		room := rooms + strconv.Itoa(i)
		if err = os.Mkdir(room, 0o700); err == nil {
			return func() { os.Remove(room) }, nil
		}
	}
	return nil, fmt.Errorf("more than %d: %w", n, err)
}

func init() {
	children["shell"] = func(args []string) {
		cmd := exec.Command("sh", "-c", args[0])
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		fmt.Println("shell ends:", cmd.Run())
	}
	// visitor locks often, sometimes in vain, and looks whether it is alone.
	children["visitor"] = func(args []string) {
		m := Must(NewFileRWMutex(args[0]))
		n, _ := strconv.Atoi(args[1])
		impatient := args[2] == "impatient"
		done := 0
		for range n {
			ctx, cancel := context.WithCancel(context.Background())
			if impatient {
				ctx, cancel = context.WithTimeout(context.Background(), rand.N(20*time.Millisecond))
			}
			err := m.LockContext(ctx)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				continue
			}
			Must(0, err)
			leave, err := alone(args[0]+".room", 1)
			if err != nil {
				fmt.Println(err)
			} else {
				time.Sleep(rand.N(time.Millisecond))
				leave()
			}
			m.Unlock()
			done++
		}
		fmt.Println("visits", done)
	}
	children["unit"] = func(args []string) {
		s := Must(NewFileSemaphore(args[0], 2))
		times := Must(strconv.Atoi(args[1]))
		for range times {
			Must(0, s.Acquire(context.Background(), 1))
			leave, err := alone(args[0]+".room", 2)
			if err != nil {
				fmt.Println(err)
			} else {
				time.Sleep(rand.N(time.Millisecond))
				leave()
			}
			s.Release(1)
		}
		fmt.Println("visits", times)
	}
}

// visits waits for processes that visit, and returns how often they did.
func visits(t *testing.T, ps ...*proc.Process) (n int) {
	t.Helper()
	for _, p := range ps {
		for {
			line, ok := p.Line(patience)
			if !ok {
				t.Fatal("still waiting")
			}
			if s, ok := strings.CutPrefix(line, "visits "); ok {
				k, _ := strconv.Atoi(s)
				n += k
				break
			}
			t.Error(line)
		}
	}
	return n
}

// fourVisit are visits by two processes of each client.
func fourVisit(t *testing.T, name string, args ...string) int {
	t.Helper()
	return visits(t, here(t, name, args...), here(t, name, args...),
		startRemote(t, otherClient, name, args...), startRemote(t, otherClient, name, args...))
}

func here(t *testing.T, name string, args ...string) *proc.Process {
	p := proc.Start(name, args...)
	t.Cleanup(p.Kill)
	return p
}

func TestNFS(t *testing.T) {
	times := 40
	if testing.Short() {
		times = 10
	}
	onNFS(t, func(t *testing.T, version, dir string) {
		run := func(name string, test func(t *testing.T, path string)) {
			t.Run(name, func(t *testing.T) { test(t, filepath.Join(dir, name)) })
		}
		run("detected", func(t *testing.T, path string) {
			m := newMutex(t, path)
			m.Lock()
			waiter := newMutex(t, path)
			wait := start(func() error { waiter.Lock(); return nil })
			waitFor(t, "a waiter at the gate", func() bool { return gated(waiter) })
			if h := m.file.handle; h.local || !h.nfs || !h.writable || isNFS4(h.fd) != (version != "3") {
				t.Errorf("%+v", h)
			}
			for _, fd := range []int{m.file.fd, waiter.file.gate.fd} {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_ACCMODE != unix.O_RDWR {
					t.Errorf("flags %#x, %v", flags, err)
				}
			}
			for _, p := range []string{path, path + gateSuffix} {
				if info, err := os.Stat(p); err != nil || info.Mode() != 0o600 {
					t.Error(info, err)
				}
			}
			m.Unlock()
			must(t, finish(t, wait))
			waiter.Unlock()
		})
		run("exclusion", func(t *testing.T, path string) {
			m, p := newMutex(t, path), farLocker(t, path)
			try := func(lock, rlock bool) {
				t.Helper()
				if m.TryLock() != lock || m.TryRLock() != rlock && !lock {
					t.Fatal("wrong about the other client")
				}
				if lock {
					m.Unlock()
				} else if rlock {
					m.RUnlock()
				}
			}
			try(true, true)
			p.Ask("lock", "lock ok")
			try(false, false)
			for _, mode := range []string{"lock", "rlock"} {
				wait, unlock := m.Lock, m.Unlock
				if mode == "rlock" {
					wait, unlock = m.RLock, m.RUnlock
				}
				waiter := start(func() error { wait(); return nil })
				pending(t, waiter)
				took(t, "the lock comes from the other client", 20*time.Second, func() {
					p.Ask("unlock", "unlock ok")
					must(t, finish(t, waiter))
				})
				p.Ask("trylock", "trylock lock ")
				unlock()
				p.Ask("lock", "lock ok")
			}
			p.Ask("unlock", "unlock ok")
			p.Ask("rlock", "rlock ok")
			try(false, true)
			p.Ask("runlock", "runlock ok")
			m.RLock()
			p.Ask("trylock", "trylock lock ")
			p.Ask("tryrlock", "tryrlock ok")
			m.RUnlock()
			p.Ask("runlock", "runlock ok")
			try(true, true)
		})
		run("visitors", func(t *testing.T, path string) {
			if n := fourVisit(t, "visitor", path, strconv.Itoa(times), "patient"); n != 4*times {
				t.Error(n)
			}
		})
		run("impatient", func(t *testing.T, path string) {
			t.Logf("%d of %d got the lock", fourVisit(t, "visitor", path, strconv.Itoa(4*times), "impatient"), 16*times)
			m := newMutex(t, path)
			took(t, "a lock after all", 20*time.Second, func() { must(t, finish(t, start(func() error { m.Lock(); return nil }))) })
			m.Unlock()
		})
		run("writer", func(t *testing.T, path string) {
			m, p, q := newMutex(t, path), farLocker(t, path), farLocker(t, path)
			p.Ask("rlock", "rlock ok")
			q.Ask("tryrlock", "tryrlock ok")
			q.Ask("runlock", "runlock ok")
			ctx, cancel := context.WithCancel(t.Context())
			writer := start(func() error { return m.LockContext(ctx) })
			waitFor(t, "a writer at the gate", func() bool { return gated(m) })
			pending(t, writer)
			q.Ask("tryrlock", "tryrlock rlock ") // refused
			cancel()
			if err := finish(t, writer); err != context.Canceled {
				t.Error(err)
			}
			time.Sleep(moment)
			q.Ask("tryrlock", "tryrlock ok")
			q.Ask("runlock", "runlock ok")
			p.Ask("runlock", "runlock ok")
		})
		run("cancel", func(t *testing.T, path string) {
			m, p := newMutex(t, path), farLocker(t, path)
			p.Ask("lock", "lock ok")
			for _, lock := range []func(context.Context) error{m.LockContext, m.RLockContext, m.LockContext} {
				ctx, cancel := context.WithCancel(t.Context())
				waiter := start(func() error { return lock(ctx) })
				time.Sleep(100 * time.Millisecond)
				took(t, "a cancel", 5*time.Second, func() {
					cancel()
					if err := finish(t, waiter); err != context.Canceled {
						t.Error(err)
					}
				})
			}
			p.Ask("unlock", "unlock ok")
			took(t, "the lock is free", 20*time.Second, func() { p.Ask("lock", "lock ok") })
			p.Ask("unlock", "unlock ok")
		})
		run("kill", func(t *testing.T, path string) {
			for _, mode := range []string{"lock", "rlock"} {
				m, p := newMutex(t, path), farLocker(t, path)
				p.Ask(mode, mode+" ok")
				waiter := start(func() error { m.Lock(); return nil })
				pending(t, waiter)
				took(t, "the lock comes from a killed process", 20*time.Second, func() {
					p.Kill()
					must(t, finish(t, waiter))
				})
				m.Unlock()
			}
		})
		run("removed", func(t *testing.T, path string) {
			m, p, q := newMutex(t, path), farLocker(t, path), farLocker(t, path)
			p.Ask("lock", "lock ok")
			q.Ask("trylock", "trylock lock ")
			must(t, os.Remove(path))
			took(t, "a removal is noticed here", 20*time.Second, m.Lock)
			begin := time.Now()
			for {
				q.Say("trylock")
				line, _ := q.Line(patience)
				if line != "trylock ok" {
					break
				}
				q.Ask("unlock", "unlock ok")
				if time.Since(begin) > 65*time.Second {
					t.Fatal("not noticed")
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Logf("a removal is noticed by the other client: %v", time.Since(begin).Round(time.Millisecond))
			m.Unlock()
			p.Ask("unlock", "unlock ok")
			took(t, "the other client locks the new file", 20*time.Second, func() { q.Ask("trylock", "trylock ok") })
			if m.TryLock() {
				t.Error("two holders")
			}
			q.Ask("unlock", "unlock ok")
		})
		run("semaphore", func(t *testing.T, path string) {
			if n := fourVisit(t, "unit", path, strconv.Itoa(times)); n != 4*times {
				t.Error(n)
			}
			s, p := newSemaphore(t, path, 2), startRemote(t, otherClient, "acquirer", path, "2")
			p.Expect("ready")
			p.Ask("acquire 2", "acquire 2 ok")
			wantTry(t, s, 1, false)
			ctx, cancel := context.WithCancel(t.Context())
			waiter := acquiring(ctx, s, 1)
			time.Sleep(100 * time.Millisecond)
			took(t, "a cancel", 5*time.Second, func() {
				cancel()
				if err := finish(t, waiter); err != context.Canceled {
					t.Error(err)
				}
			})
			waiter = acquiring(t.Context(), s, 2)
			pending(t, waiter)
			took(t, "units come from a killed process", 20*time.Second, func() {
				p.Kill()
				must(t, finish(t, waiter))
			})
			s.Release(2)
		})
	})
}

// What a server that starts anew does to the locks: the clients claim theirs again, within the server's grace
// period, and nobody else gets them.
func TestNFSServerRestart(t *testing.T) {
	if os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("needs the machines that make test-nfs starts")
	}
	type held struct {
		version string
		m       *FileRWMutex
		p       *proc.Process
		waiter  <-chan error
	}
	var all []held
	for _, v := range nfsVersions {
		dir, err := os.MkdirTemp("/mnt/v"+v, "restart-*")
		must(t, err)
		h := held{version: v, m: newMutex(t, filepath.Join(dir, "lock"))}
		h.p = farLocker(t, h.m.abs)
		h.p.Ask("lock", "lock ok")
		h.waiter = start(func() error { return h.m.LockContext(t.Context()) })
		all = append(all, h)
	}
	time.Sleep(time.Second)
	begin := time.Now()
	shell(t, nfsServer, "rpc.nfsd 0; sleep 1; rpc.nfsd 8; sm-notify -f")
	t.Logf("restarted in %v", time.Since(begin).Round(time.Millisecond))
	free := newMutex(t, filepath.Join(filepath.Dir(all[0].m.abs), "free"))
	free.Lock() // after the grace period
	t.Logf("first new lock: after %v", time.Since(begin).Round(100*time.Millisecond))
	free.Unlock()
	for _, h := range all {
		select {
		case err := <-h.waiter:
			t.Errorf("v%s: the lock was lost: %v", h.version, err)
			continue
		case <-time.After(time.Second):
		}
		if line := h.p.Ask("unlock", ""); line != "unlock ok" {
			t.Errorf("v%s: %s", h.version, line)
		}
		took(t, "v"+h.version+": the lock comes from the other client", 20*time.Second, func() { must(t, finish(t, h.waiter)) })
		h.m.Unlock()
	}
}

// What becomes of the locks of a client that is cut off. Version 4 takes them away once its lease is over, here
// after 10 s, and gives them to others; the client cannot know. On v3, they stay.
func TestNFSCutOffClient(t *testing.T) {
	if os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("needs the machines that make test-nfs starts")
	}
	type held struct {
		version string
		m       *FileRWMutex
		p, q    *proc.Process
		waiter  <-chan error
		lost    bool
	}
	var all []*held
	for _, v := range nfsVersions {
		dir, err := os.MkdirTemp("/mnt/v"+v, "cut-*")
		must(t, err)
		h := &held{version: v, m: newMutex(t, filepath.Join(dir, "lock"))}
		h.p, h.q = farLocker(t, h.m.abs), farLocker(t, h.m.abs)
		h.p.Ask("lock", "lock ok")
		h.waiter = start(func() error { return h.m.LockContext(t.Context()) })
		pending(t, h.waiter)
		all = append(all, h)
	}
	shell(t, otherClient, "ip neigh replace 10.77.0.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent")
	cutOff := time.Now()
	since := func(begin time.Time) time.Duration { return time.Since(begin).Round(100 * time.Millisecond) }
	for _, h := range all {
		h.q.Say("lock") // which gets no answer
	}
	time.Sleep(time.Second)
	for _, h := range all {
		took(t, "v"+h.version+": a cancel while cut off", 5*time.Second, func() {
			h.q.Say("cancel")
			h.q.Expect("lock context canceled")
		})
	}
	var wg sync.WaitGroup
	for _, h := range all {
		wg.Go(func() {
			select {
			case err := <-h.waiter:
				t.Logf("v%s: the lock was given to another client after %v (%v)", h.version, since(cutOff), err)
				h.lost = true
			case <-time.After(25 * time.Second):
				t.Logf("v%s: the client still has the lock after %v", h.version, since(cutOff))
			}
		})
	}
	wg.Wait()
	shell(t, otherClient, "ip neigh del 10.77.0.1 dev eth0; ip neigh flush dev eth0; ping -c 1 10.77.0.1 >/dev/null 2>&1; true")
	connected := time.Now()
	for _, h := range all {
		wg.Go(func() {
			if h.lost != (h.version != "3") {
				t.Errorf("v%s: lost: %t", h.version, h.lost)
			}
			expect := func(want string) {
				if line, ok := h.p.Line(80 * time.Second); line != want {
					t.Errorf("v%s: %q (%t) instead of %q", h.version, line, ok, want)
				}
			}
			h.p.Say("unlock")
			expect("unlock ok")
			t.Logf("v%s: connected again, unlock returns after %v", h.version, since(connected))
			if !h.lost {
				<-h.waiter
				t.Logf("v%s: the lock comes from the client %v after it was connected", h.version, since(connected))
			}
			h.p.Say("lock")
			if line, ok := h.p.Line(2 * time.Second); ok {
				t.Errorf("v%s: two holders: %s", h.version, line)
			}
			h.m.Unlock()
			expect("lock ok")
			t.Logf("v%s: the client has the lock again %v after it was connected", h.version, since(connected))
			if h.m.TryLock() {
				t.Errorf("v%s: two holders", h.version)
			}
			h.p.Say("unlock")
			expect("unlock ok")
		})
	}
	wg.Wait()
}
