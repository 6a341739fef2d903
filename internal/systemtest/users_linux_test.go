package systemtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

func init() { children["try"] = try }

// try makes a FileRWMutex, and tries to lock it. If that works, it prints "ok"
// and whether the file is open for writing, and keeps the lock.
func try(args []string) {
	path := args[0]
	m, err := interlock.NewFileRWMutex(path)
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
	fmt.Println("ok", openForWriting(path))
	bufio.NewReader(os.Stdin).ReadString('\n')
}

// openForWriting reports whether this process has the file open for writing.
func openForWriting(path string) bool {
	for _, e := range interlock.Must(os.ReadDir("/proc/self/fd")) {
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); target != path {
			continue
		}
		fd, _ := strconv.Atoi(e.Name())
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_ACCMODE == unix.O_RDWR {
			return true
		}
	}
	return false
}

func TestFileThatCannotBeOpened(t *testing.T) {
	kit.NeedRoot(t)
	dir := kit.OpenDir(t, 0o755)
	hidden := filepath.Join(dir, "hidden")
	kit.Must(t, os.WriteFile(hidden, []byte("precious"), 0o600))
	before := kit.Listing(t, dir)
	for _, path := range []string{hidden, filepath.Join(dir, "new")} {
		kit.AsNobody(t, "try", path).Expect("EACCES open " + path)
	}
	if after := kit.Listing(t, dir); after != before {
		t.Errorf("the directory was:\n%s\nis:\n%s", before, after)
	}
}

// In a sticky directory Linux can refuse O_CREAT for an existing file of a
// third user (fs.protected_regular, proc(5)).
func TestFileOfAThirdUserInStickyDirectory(t *testing.T) {
	kit.NeedRoot(t)
	dir := kit.OpenDir(t, fs.ModeSticky|0o777)
	const knob = "/proc/sys/fs/protected_regular"
	old, err := os.ReadFile(knob)
	kit.Must(t, err)
	defer os.WriteFile(knob, old, 0)
	for _, level := range []string{"0", "1", "2"} {
		kit.Must(t, os.WriteFile(knob, []byte(level), 0))
		for _, perm := range []fs.FileMode{0o644, 0o666} {
			path := filepath.Join(dir, fmt.Sprint("lock", level, perm))
			kit.Must(t, os.WriteFile(path, nil, perm))
			kit.Must(t, os.Chmod(path, perm))
			kit.Must(t, os.Chown(path, 12345, 12345)) // owns neither the process nor the directory
			m := newMutex(t, path)
			p := kit.AsNobody(t, "try", path)
			if got, want := p.Expect("ok"), strconv.FormatBool(perm&0o002 != 0); got != want {
				t.Errorf("%s is open for writing: %s, want %s", path, got, want)
			}
			if m.TryLock() {
				t.Errorf("%s has two holders", path)
			}
			p.Kill()
			m.Lock()
			kit.AsNobody(t, "try", path).Expect("lock " + path + ": already locked")
			m.Unlock()
		}
	}
}

// lockerWithoutRights starts a locker that can no longer open its file, as
// after it gave up rights.
func lockerWithoutRights(t *testing.T) (p *proc.Process, path string) {
	t.Helper()
	kit.NeedRoot(t)
	dir := kit.OpenDir(t, 0o777)
	needGateInFile(t, dir)
	path = filepath.Join(dir, "lock")
	p = kit.AsNobody(t, "locker", path)
	p.Expect("ready")
	kit.Must(t, os.Chown(path, 0, 0))
	kit.Must(t, os.Chmod(path, 0o600))
	return p, path
}

func TestReaderWithoutRightsDoesNotPassWriter(t *testing.T) {
	p, path := lockerWithoutRights(t)
	m, other := newMutex(t, path), newMutex(t, path)
	m.RLock()
	writer := locking(t.Context(), other)
	waitForWriter(t, path)
	p.Say("rlock")
	kit.Silent(t, p)
	m.RUnlock()
	kit.Must(t, kit.Finish(t, writer))
	kit.Silent(t, p)
	other.Unlock()
	p.Expect("rlock ok")
	p.Ask("runlock", "runlock ok")
}

func TestWriterWithoutRightsIsNotPassed(t *testing.T) {
	p, path := lockerWithoutRights(t)
	m := newMutex(t, path)
	for range 2 {
		m.RLock()
		p.Say("lock")
		waitForWriter(t, path)
		kit.Silent(t, p)
		p.Say("cancel")
		p.Expect("lock context canceled")
		if writerAtGate(path) {
			t.Fatal("a canceled writer still stands at the gate")
		}
		p.Say("lock")
		waitForWriter(t, path)
		m.RUnlock()
		p.Expect("lock ok")
		if writerAtGate(path) {
			t.Fatal("a writer that has the lock still stands at the gate")
		}
		p.Ask("unlock", "unlock ok")
	}
}

// SECURITY.md: a user who may only read the gate of a semaphore cannot change
// its size.
func TestReaderOfGateCannotChangeSize(t *testing.T) {
	kit.NeedRoot(t)
	name := filepath.Join(kit.OpenDir(t, 0o755), "sem")
	s, err := interlock.NewFileSemaphore(name, 2, interlock.WithPerm(0o644))
	kit.Must(t, err)
	kit.Must(t, s.Close())
	before := interlock.Must(os.ReadFile(name + ".gate.lock"))
	p := kit.AsNobody(t, "acquirer", name, "2") // that user can use the semaphore
	p.Expect("ready")
	p.Kill()
	line, _ := kit.AsNobody(t, "acquirer", name, "3").Line(kit.Patience)
	if !strings.Contains(line, "size 2") || !strings.Contains(line, "size 3") {
		t.Errorf("the process printed %q, want an error that names both sizes", line)
	}
	if after := interlock.Must(os.ReadFile(name + ".gate.lock")); string(after) != string(before) {
		t.Errorf("the size file was %q, is %q", before, after)
	}
}
