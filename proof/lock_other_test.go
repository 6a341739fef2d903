//go:build linux

package proof

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/portalocker"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// A flockFile is a file that flock(1) locks through an inherited descriptor.
// flock(1) does not check whether the file is still the one at its path, so
// flockFile does.
type flockFile struct {
	path string
	file *os.File
}

func openFlock(path string, _ int64) (lock, error) { return &flockFile{path: path}, nil }

func (f *flockFile) acquire(ctx context.Context, weight int64) error {
	return poll(ctx, func() error { return f.flock(weight, "--timeout=0.05") })
}

func (f *flockFile) try(weight int64) error { return f.flock(weight, "--nonblock") }

func (f *flockFile) flock(weight int64, how string) error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	mode := "--exclusive"
	if weight == 1 {
		mode = "--shared"
	}
	cmd := exec.Command("flock", mode, how, "3")
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 1, err == nil && !isAt(file, f.path):
		err = interlock.ErrLocked
	case errors.Is(err, unix.EBADF), exit != nil && exit.ExitCode() == 127:
		// The limit on descriptors fell after the fork. dup2(2) failed because
		// the number was above the limit, or the dynamic linker could not open
		// a library.
		err = &os.PathError{Op: "flock(1)", Path: f.path, Err: unix.EMFILE}
	}
	if err != nil {
		file.Close()
		return err
	}
	f.file = file
	return nil
}

func (f *flockFile) release(int64) {
	unix.Flock(int(f.file.Fd()), unix.LOCK_UN)
	f.file.Close()
}

// isAt reports whether file is the one at path.
func isAt(file *os.File, path string) bool {
	info, err := file.Stat()
	at, pathErr := os.Stat(path)
	return err == nil && pathErr == nil && os.SameFile(info, at)
}

// A pythonLock is a lock of Python's portalocker.
type pythonLock struct {
	p    *proc.Process
	wait string // the command to acquire
	once string // the command to try
}

func openPortalocker(path string, _ int64) (lock, error) {
	return &pythonLock{portalocker.Run(), "lock " + path + " 0.05", "try " + path}, nil
}

func openPortalockerSemaphore(path string, capacity int64) (lock, error) {
	acquire := fmt.Sprintf("acquire %s %d ", path, capacity)
	return &pythonLock{portalocker.Run(), acquire + "0.05", acquire + "0"}, nil
}

func (l *pythonLock) acquire(ctx context.Context, _ int64) error {
	return poll(ctx, func() error { return l.ask(l.wait) })
}

func (l *pythonLock) try(int64) error { return l.ask(l.once) }

func (l *pythonLock) ask(line string) error {
	switch answer := l.p.Ask(line, ""); answer {
	case "ok":
	case "locked":
		return interlock.ErrLocked
	default:
		return errors.New(answer)
	}
	if l.p.Ask("current", "") != "ok" { // the locked file was replaced
		l.release(0)
		return interlock.ErrLocked
	}
	return nil
}

func (l *pythonLock) release(int64) { l.p.Ask("release", "ok") }
