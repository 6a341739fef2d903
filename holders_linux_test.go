//go:build !interlock_bsd

package interlock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func wantHolders(t *testing.T, path string, want ...Holder) {
	t.Helper()
	var got []Holder
	waitFor(t, "holders", func() bool {
		var err error
		got, err = Holders(path)
		must(t, err)
		return len(got) == len(want)
	})
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestHolders(t *testing.T) {
	needKernelWait(t)
	path := lockPath(t)
	m := newMutex(t, path)
	wantHolders(t, path)
	comm, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	self := Holder{PID: os.Getpid(), Command: strings.TrimSpace(string(comm))}
	reading := self
	reading.Shared = true
	m.RLock()
	m.RLock()
	wantHolders(t, path, reading)
	m.RUnlock()
	m.RUnlock()

	p := startLocker(t, path)
	p.Ask("lock", "lock ok")
	comm, err = os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.Pid()))
	must(t, err)
	other := Holder{PID: p.Pid(), Command: strings.TrimSpace(string(comm))}
	wantHolders(t, path, other)
	w := start(func() error { return m.LockContext(t.Context()) })
	waiting := self
	waiting.Waiting = true
	wantHolders(t, path, other, waiting)
	if m.local {
		second := startLocker(t, path)
		second.Say("rlock")
		wantHolders(t, path, other, waiting, Holder{Shared: true, Waiting: true})
		p.Ask("unlock", "unlock ok")
		must(t, finish(t, w))
		m.Unlock()
		second.Expect("rlock ok")
		return
	}
	p.Ask("unlock", "unlock ok")
	must(t, finish(t, w))
	m.Unlock()
}

func TestHoldersRefuses(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{dir: unix.EISDIR, filepath.Join(dir, "missing"): fs.ErrNotExist} {
		_, err := Holders(path)
		var pathErr *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Error(err)
		}
	}
}

// Where stat(2) tells another device than the kernel's list of locks.
func TestHoldersOnOtherFileSystems(t *testing.T) {
	needRoot(t)
	dir := mount(t, "none", "tmpfs", 0, "")
	m := newMutex(t, filepath.Join(dir, "lock"))
	m.Lock()
	if h, err := Holders(m.Path()); err != nil || len(h) != 1 || h[0].PID != os.Getpid() {
		t.Error(h, err)
	}
	m.Unlock()
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	must(t, Probe(dir))
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Error("left: ", left)
	}
	if err := Probe(""); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	err := Probe(filepath.Join(dir, "missing"))
	var pathErr *fs.PathError
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &pathErr) || pathErr.Path != filepath.Join(dir, "missing") {
		t.Error(err)
	}
}

// A child process has every open file between fork and exec.
func TestProbeWhileProcessesStart(t *testing.T) {
	stop := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					exec.Command("/bin/true").Run()
				}
			}
		})
	}
	dir := t.TempDir()
	for range 300 {
		must(t, Probe(dir))
	}
	close(stop)
	others.Wait()
}

func TestProbeTellsWhatFails(t *testing.T) {
	for mode, want := range map[string]string{
		"works":  "",
		"grants": "two hold an exclusive lock",
		"hoards": "is not free",
		"strict": "readers do not share it",
		"unable": "an exclusive lock is not to be had: bad file descriptor",
	} {
		t.Run(mode, func(t *testing.T) {
			_, path := mountFUSE(t, mode)
			err := Probe(filepath.Dir(path))
			if want == "" {
				must(t, err)
			} else if err == nil || !strings.Contains(err.Error(), want) {
				t.Error(err)
			}
		})
	}
}

// The list of all locks takes many reads, and changes between them.
func TestHoldersAreTheHoldersWhileOtherLocksComeAndGo(t *testing.T) {
	path := lockPath(t)
	m := newMutex(t, path)
	other, err := os.Create(filepath.Join(tempDir(t), "other"))
	must(t, err)
	defer other.Close()
	lock := func(at int64, kind int16) {
		must(t, unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: at, Len: 1}))
	}
	for i := range int64(100) {
		lock(2*i, unix.F_WRLCK)
	}
	m.Lock()
	defer m.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var churn sync.WaitGroup
	churn.Go(func() {
		for ctx.Err() == nil {
			lock(999, unix.F_WRLCK)
			lock(999, unix.F_UNLCK)
		}
	})
	for i := range int64(200) {
		lock(1002+2*i, unix.F_WRLCK) // which moves ours in the list
		if l := kernelLocks(t, path); len(l) != 1 {
			t.Errorf("one lock is %q", l)
			break
		}
	}
	cancel()
	churn.Wait()
}
