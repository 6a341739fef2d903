//go:build !interlock_bsd

package interlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wantHolders waits for that many holders and waiters, and fails unless they
// are the given ones.
func wantHolders(t *testing.T, path string, want ...Holder) {
	t.Helper()
	var got []Holder
	waitFor(t, fmt.Sprintf("there are %d holders and waiters", len(want)), func() bool {
		var err error
		got, err = Holders(path)
		must(t, err)
		return len(got) == len(want)
	})
	if !slices.Equal(got, want) {
		t.Errorf("Holders = %+v, want %+v", got, want)
	}
}

// command returns the name of a command as Holders shows it.
func command(t *testing.T, pid int) string {
	t.Helper()
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	must(t, err)
	return strings.TrimSpace(string(comm))
}

// All those that wait for the lock itself have PIDs.
func TestHoldersOfReadersThatWaitTogether(t *testing.T) {
	needKernelWait(t)
	path := lockPath(t)
	m := newMutex(t, path)
	m.Lock()
	defer m.Unlock()
	var pids, want []int
	for range 2 {
		p := startLocker(t, path)
		p.Say("rlock")
		want = append(want, p.Pid())
	}
	waitFor(t, "the readers wait", func() bool {
		all, err := Holders(path)
		must(t, err)
		pids = nil
		for _, h := range all {
			if h.Waiting && h.PID != 0 {
				pids = append(pids, h.PID)
			}
		}
		return len(pids) == 2
	})
	slices.Sort(pids)
	slices.Sort(want)
	if !slices.Equal(pids, want) {
		t.Errorf("PIDs %d, want %d", pids, want)
	}
}

func TestHolders(t *testing.T) {
	needKernelWait(t)
	path := lockPath(t)
	m := newMutex(t, path)
	wantHolders(t, path)
	self := Holder{PID: os.Getpid(), Command: command(t, os.Getpid())}
	reading, waiting := self, self
	reading.Shared, waiting.Waiting = true, true
	m.RLock()
	m.RLock()
	wantHolders(t, path, reading)
	m.RUnlock()
	m.RUnlock()

	p := startLocker(t, path)
	p.Ask("lock", "lock ok")
	other := Holder{PID: p.Pid(), Command: command(t, p.Pid())}
	wantHolders(t, path, other)
	waiter := locking(t.Context(), m)
	wantHolders(t, path, other, waiting)
	if local(m) { // elsewhere, a waiter at the gate is not known
		second := startLocker(t, path)
		second.Say("rlock")
		wantHolders(t, path, other, waiting, Holder{Shared: true, Waiting: true})
		defer second.Expect("rlock ok")
	}
	p.Ask("unlock", "unlock ok")
	must(t, finish(t, waiter))
	m.Unlock()
}

func TestHoldersErrorsNameThePath(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{dir: unix.EISDIR, filepath.Join(dir, "missing"): fs.ErrNotExist} {
		_, err := Holders(path)
		var pathErr *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Errorf("Holders = %v, want %v", err, want)
		}
	}
}
