//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"
)

func init() { children["fuse"] = fuse }

// fuse mounts a file system with an empty file "lock", and serves it (fuse(4)) until it is
// killed. How it answers requests for locks is its second argument:
//
//	works    with locks in this process
//	waits    as works, but never answers one that has to wait, not even when it is interrupted
//	silent   never
//	refuses  as works, but refuses what would have to wait, and counts no links
//	unable   as works, but knows no flock(2)
//	grants   every lock to everybody
//	hoards   keeps locks that are given back
//	strict   does not let readers share
//
// A line of input switches from works to silent.
func fuse(args []string) {
	dev := Must(unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0))
	err := unix.Mount("interlock", args[0], "fuse.interlock", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev))
	if err != nil {
		fmt.Println("cannot mount:", err)
		return
	}
	var (
		mu      sync.Mutex
		mode    = args[1]
		names   = map[string]uint64{"lock": 2}
		nodes   = uint64(2)                         // the last one
		removed = map[uint64]bool{}                 // and forgotten
		holders = map[[2]uint64]map[uint64]uint32{} // kind and node → owner → type
		data    = map[uint64][]byte{}
	)
	go func() {
		in := bufio.NewReader(os.Stdin)
		if _, err := in.ReadString('\n'); err != nil {
			os.Exit(0) // who started us has ended
		}
		defer func() {
			in.ReadString('\n')
			os.Exit(0)
		}()
		mu.Lock()
		mode = "silent"
		mu.Unlock()
		fmt.Println("silent")
	}()
	fmt.Println("mounted")

	// The kernel's order of bytes, which under qemu need not be the program's.
	var order interface {
		binary.ByteOrder
		binary.AppendByteOrder
	} = binary.LittleEndian
	attr := func(node uint64) []byte {
		b := order.AppendUint64(nil, node)
		b = append(b, make([]byte, 52)...)
		mode, links := uint32(unix.S_IFREG|0o644), uint32(1)
		if node == 1 {
			mode, links = unix.S_IFDIR|0o755, 2
		} else if args[1] == "refuses" {
			links = 0
		}
		b = order.AppendUint32(b, mode)
		b = order.AppendUint32(b, links)
		return append(b, make([]byte, 20)...)
	}
	reply := func(unique uint64, errno unix.Errno, body []byte) {
		b := order.AppendUint32(nil, uint32(16+len(body)))
		b = order.AppendUint32(b, uint32(-int32(errno)))
		b = order.AppendUint64(b, unique)
		unix.Write(dev, append(b, body...))
	}
	entry := func(node uint64) []byte {
		return append(append(order.AppendUint64(nil, node), make([]byte, 32)...), attr(node)...)
	}
	open := func() []byte { // whose contents are not cached, as their size is not told
		return append(order.AppendUint32(make([]byte, 8), 1), 0, 0, 0, 0)
	}
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(dev, buf)
		if err == unix.EINTR || err == unix.ENOENT {
			continue
		}
		if err != nil {
			return
		}
		if n == int(binary.BigEndian.Uint32(buf)) { // a request begins with its length
			order = binary.BigEndian
		}
		in := buf[40:n]
		op, unique, node := order.Uint32(buf[4:]), order.Uint64(buf[8:]), order.Uint64(buf[16:])
		mu.Lock()
		switch op {
		case 26: // INIT: version 7.31, POSIX and flock(2) locks
			b := order.AppendUint32(order.AppendUint32(nil, 7), 31)
			b = order.AppendUint32(order.AppendUint32(b, 4096), 1<<1|1<<10)
			b = order.AppendUint32(order.AppendUint32(b, 0), 4096)
			reply(unique, 0, append(b, make([]byte, 40)...))
		case 1: // LOOKUP
			if node, ok := names[string(in[:len(in)-1])]; ok {
				reply(unique, 0, entry(node))
			} else {
				reply(unique, unix.ENOENT, nil)
			}
		case 35: // CREATE
			name := string(in[16 : len(in)-1])
			nodes++
			names[name] = nodes
			reply(unique, 0, append(entry(names[name]), open()...))
		case 3: // GETATTR
			if removed[node] {
				reply(unique, unix.ENOENT, nil)
			} else {
				reply(unique, 0, append(make([]byte, 16), attr(node)...))
			}
		case 10: // UNLINK
			name := string(in[:len(in)-1])
			removed[names[name]] = true
			delete(names, name)
			reply(unique, 0, nil)
		case 14: // OPEN
			reply(unique, 0, open())
		case 15: // READ
			reply(unique, 0, data[node])
		case 16: // WRITE
			data[node] = slices.Clone(in[40:])
			reply(unique, 0, order.AppendUint64(nil, uint64(len(in)-40)))
		case 17: // STATFS
			reply(unique, 0, make([]byte, 80))
		case 31, 32, 33: // GETLK, SETLK, SETLKW
			owner, typ := order.Uint64(in[8:]), order.Uint32(in[32:])
			flock := uint64(order.Uint32(in[40:]) & 1)
			held := holders[[2]uint64{flock, node}]
			conflict := false
			for o, t := range held {
				conflict = conflict || o != owner && typ != unix.F_UNLCK && (t == unix.F_WRLCK || typ == unix.F_WRLCK || mode == "strict")
			}
			conflict = conflict && mode != "grants"
			switch {
			case mode == "silent", op == 33 && conflict && mode != "refuses":
			case mode == "unable" && flock == 1:
				reply(unique, unix.EBADF, nil)
			case op == 31:
				b := append([]byte{}, in[16:40]...)
				if !conflict {
					order.PutUint32(b[16:], unix.F_UNLCK)
				}
				reply(unique, 0, b)
			case conflict:
				reply(unique, unix.EAGAIN, nil)
			default:
				if held == nil {
					held = map[uint64]uint32{}
					holders[[2]uint64{flock, node}] = held
				}
				held[owner] = typ
				if typ == unix.F_UNLCK && mode == "hoards" {
					held[owner] = unix.F_WRLCK
				} else if typ == unix.F_UNLCK {
					delete(held, owner)
				}
				reply(unique, 0, nil)
			}
		case 18: // RELEASE
			if order.Uint32(in[12:])&2 != 0 { // of a flock(2)
				delete(holders[[2]uint64{1, node}], order.Uint64(in[16:]))
			}
			reply(unique, 0, nil)
		case 25: // FLUSH
			reply(unique, 0, nil)
		case 2, 36, 42: // FORGET, INTERRUPT, BATCH_FORGET have no answer
		default:
			reply(unique, unix.ENOSYS, nil)
		}
		mu.Unlock()
	}
}

var usualGrace = grace // that of the tests is longer

func mountFUSE(t *testing.T, mode string) (*proc.Process, string) {
	t.Helper()
	needRoot(t)
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	long := grace
	grace = usualGrace
	t.Cleanup(func() { grace = long })
	dir := t.TempDir()
	p := proc.Start("fuse", dir, mode)
	t.Cleanup(func() {
		p.Kill()
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	p.Expect("mounted")
	return p, filepath.Join(dir, "lock")
}

// stop stops a process, and waits until all its threads stand still: the signal alone lets them go on for a while on a busy machine.
func stop(t *testing.T, p *proc.Process) {
	t.Helper()
	p.Signal(unix.SIGSTOP)
	err := unix.EINTR
	for err == unix.EINTR {
		err, _ = unix.Waitid(unix.P_PID, p.Pid(), nil, unix.WSTOPPED, nil).(unix.Errno)
	}
	if err != 0 {
		t.Fatalf("stop: %v", err)
	}
}

// Where the file system does not answer, waits are prompt all the same.
func TestFileSystemThatDoesNotAnswer(t *testing.T) {
	for _, mode := range []string{"waits", "silent", "stopped"} {
		t.Run(mode, func(t *testing.T) {
			needKernelWait(t)
			Must(unlockableFD()) // which stays open
			fds := descriptors(t, "self")
			t.Cleanup(func() { // when all is closed
				waitFor(t, "descriptors close", func() bool { return descriptors(t, "self") <= fds })
			})
			daemon, path := mountFUSE(t, map[string]string{"stopped": "waits"}[mode]+strings.TrimSuffix(mode, "stopped"))
			m, err := NewFileRWMutex(path)
			must(t, err)
			if m.local {
				t.Fatal("a FUSE file system counts as local")
			}
			if mode != "silent" {
				holder := newMutex(t, path)
				holder.Lock()
				defer holder.Unlock()
				for _, try := range []bool{m.TryLock(), m.TryRLock(), holder.TryRLock()} {
					if try {
						t.Error("two holders")
					}
				}
			}
			if mode == "stopped" { // while one waits in the kernel
				ctx, cancel := context.WithCancel(t.Context())
				wait := start(func() error { return m.LockContext(ctx) })
				pending(t, wait)
				stop(t, daemon)
				cancel()
				if err := finish(t, wait); err != context.Canceled {
					t.Error(err)
				}
			}
			var results []<-chan error
			for i := range 20 {
				wait := m.LockContext
				if i%2 == 1 {
					wait = m.RLockContext
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%5)*10*time.Millisecond)
				defer cancel()
				results = append(results, start(func() error { return wait(ctx) }))
			}
			for _, r := range results {
				if err := finish(t, r); err != context.DeadlineExceeded {
					t.Error(err)
				}
			}
			for name, call := range methods(m) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				if err := call(ctx); err != context.DeadlineExceeded && (mode != "waits" || err == nil) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if n := threadCount(t, "self"); n > 120 {
				t.Errorf("%d threads", n)
			}
			daemon.Kill() // which ends what is left in the kernel
			waitFor(t, "the threads come back", func() bool {
				for threads, all := range map[*semaphore.Weighted]int64{waits: maxWaits, callsTo(m.device): maxCalls} {
					if !threads.TryAcquire(all) {
						return false
					}
					threads.Release(all)
				}
				return true
			})
			must(t, m.Close())
		})
	}
}

// A file system that does not answer holds up nobody on another one, however many calls it leaves unanswered.
func TestSilentFileSystemHoldsUpNoOther(t *testing.T) {
	_, path := mountFUSE(t, "works")
	_, otherPath := mountFUSE(t, "works")
	m, other := newMutex(t, path), newMutex(t, otherPath)
	threads := callsTo(m.device)
	must(t, threads.Acquire(t.Context(), maxCalls)) // which it does not answer
	defer threads.Release(maxCalls)
	ctx, cancel := context.WithCancel(t.Context())
	waiter := start(func() error { return m.TryLockContext(ctx) })
	pending(t, waiter)
	must(t, finish(t, start(func() error { return other.LockContext(ctx) })))
	other.Unlock()
	cancel()
	if err := finish(t, waiter); err != context.Canceled {
		t.Error(err)
	}

	// But for all together, or the runtime would end the program.
	must(t, allCalls.Acquire(t.Context(), maxAllCalls))
	defer allCalls.Release(maxAllCalls)
	ctx, cancel = context.WithCancel(t.Context())
	waiter = start(func() error { return other.TryLockContext(ctx) })
	pending(t, waiter)
	cancel()
	if err := finish(t, waiter); err != context.Canceled {
		t.Error(err)
	}
	if !callsTo(other.device).TryAcquire(maxCalls) {
		t.Fatal("a thread was not given back")
	}
	callsTo(other.device).Release(maxCalls)
}

// Where the file system does not wait as it was asked to, the poller does.
func TestFileSystemThatDoesNotWait(t *testing.T) {
	_, path := mountFUSE(t, "refuses")
	m, holder := newMutex(t, path), newMutex(t, path)
	holder.Lock()
	waiter := start(func() error { return m.LockContext(t.Context()) })
	pending(t, waiter)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := m.LockContext(ctx); err != context.DeadlineExceeded {
		t.Error(err)
	}
	holder.Unlock()
	must(t, finish(t, waiter))
	m.Unlock()
}

// Where a removed file is forgotten though it is open, the next one is used.
func TestRemovedFileThatIsForgotten(t *testing.T) {
	_, path := mountFUSE(t, "works")
	m := newMutex(t, path)
	for _, lock := range []func(){m.Lock, m.RLock, func() { must(t, m.TryLockContext(t.Context())) }} {
		m.Lock()
		m.Unlock()
		must(t, os.Remove(path))
		lock()
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		if m.TryLock() {
			t.Error("two holders")
		}
		must(t, os.Remove(path)) // while it is held
		if m.held == shared {
			m.RUnlock()
		} else {
			m.Unlock()
		}
	}
}

// An Unlock that gets no answer holds up nobody but its caller.
func TestUnlockWithoutAnAnswer(t *testing.T) {
	daemon, path := mountFUSE(t, "works")
	m := newMutex(t, path)
	m.Lock()
	daemon.Ask("", "silent")
	unlock := start(func() error { m.Unlock(); return nil })
	pending(t, unlock)
	for name, call := range methods(m) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := call(ctx); err == nil {
			t.Errorf("%s: locked twice", name)
		}
	}
	daemon.Kill()
	finish(t, unlock)
}

// A file system that is not known to be local works like a local one.
func TestRemoteFileSystem(t *testing.T) {
	_, path := mountFUSE(t, "works")
	m, other := newMutex(t, path, WithPollInterval(time.Millisecond, 2*time.Millisecond)), newMutex(t, path)
	for _, ctx := range []context.Context{context.Background(), t.Context()} {
		n := 0
		hammer(t, 4, 50, func(i int) {
			l := []*FileRWMutex{m, other}[i%2]
			if i < 2 {
				// The daemon does not serve waits in the kernel: one at a time tries.
				for l.TryLockContext(ctx) != nil {
					time.Sleep(time.Millisecond)
				}
				n++
				l.Unlock()
				return
			}
			for l.TryRLockContext(ctx) != nil {
				time.Sleep(time.Millisecond)
			}
			_ = n
			l.RUnlock()
		})
		if n != 100 {
			t.Errorf("%d increments left of 100", n)
		}
	}
	// In one process, all that waits is in memory.
	n := 0
	hammer(t, 8, 50, func(i int) {
		if i%2 == 0 {
			must(t, m.LockContext(t.Context()))
			n++
			m.Unlock()
		} else {
			must(t, m.RLockContext(t.Context()))
			_ = n
			m.RUnlock()
		}
	})
	if n != 4*50 {
		t.Errorf("%d increments left of %d", n, 4*50)
	}
	// A writer who waits stops readers by the gate beside the file.
	other.RLock()
	ctx, cancel := context.WithCancel(t.Context())
	writer := start(func() error { return m.LockContext(ctx) })
	waitFor(t, "a writer at the gate", func() bool { return other.file.gateTaken(shared) })
	time.Sleep(time.Millisecond)
	if other.TryRLock() {
		t.Error("a new reader")
	}
	cancel()
	if err := finish(t, writer); err != context.Canceled {
		t.Error(err)
	}
	other.RUnlock()
	waitFor(t, "the gate is left", func() bool { return !other.file.gateTaken(shared) })
	waitFor(t, "the lock is free", func() bool { return other.TryLock() })
	other.Unlock()
	if _, err := os.Stat(path + gateSuffix); err != nil {
		t.Error(err)
	}
}
