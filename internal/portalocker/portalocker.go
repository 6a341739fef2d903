// Package portalocker runs Python's portalocker, for tests that share a lock
// with it.
package portalocker

import (
	"os"
	"os/exec"
	"testing"

	"github.com/interlock-go/interlock/internal/need"
	"github.com/interlock-go/interlock/internal/proc"
)

// script runs one command per line of input. [Run] documents the commands.
const script = `
import contextlib, io, os, sys
import portalocker
held = []

def lock(path, **kwargs):
    held.append(portalocker.Lock(path, **kwargs))
    try:
        held[-1].acquire()
    except Exception:
        held.pop()
        raise

def current():
    fh = (held[-1].lock if isinstance(held[-1], portalocker.BoundedSemaphore) else held[-1]).fh
    try:
        at = os.stat(fh.name)
    except FileNotFoundError:
        return False
    return os.path.samestat(at, os.fstat(fh.fileno()))

def acquire(path, size, timeout):
    s = portalocker.BoundedSemaphore(int(size), name=os.path.basename(path), directory=os.path.dirname(path),
                                     timeout=timeout, check_interval=0.01)
    s.acquire()
    held.append(s)

def handle(path, flags):
    f = open(path, 'r+')
    portalocker.lock(f, flags)
    held.append(f)
    f.release = lambda: (portalocker.unlock(f), f.close())

commands = {
    'lock': lambda path, timeout=60: lock(path, timeout=float(timeout), check_interval=0.01),
    'try': lambda path: lock(path, fail_when_locked=True),
    'tryshared': lambda path: handle(path, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING),
    'append': lambda word: print(word, file=held[-1].fh, flush=True),
    'acquire': lambda path, size, timeout=60: acquire(path, size, float(timeout)),
    'current': current,
    'release': lambda: held.pop().release(),
}
answers = sys.stdout
print('ready', file=answers, flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        with contextlib.redirect_stdout(io.StringIO()): # some versions print as they lock
            answer = 'ok' if commands[words[0]](*words[1:]) is not False else 'gone'
    except portalocker.exceptions.BaseLockException:
        answer = 'locked'
    print(answer, file=answers, flush=True)
`

// python is the interpreter of Debian, which finds the Debian package. The
// search path may lead to another one.
const python = "/usr/bin/python3"

// Need skips the test if Debian's python3-portalocker is not installed. If
// INTERLOCK_NEED is set, Need fails the test instead.
func Need(t testing.TB) {
	t.Helper()
	if err := exec.Command(python, "-c", "import portalocker").Run(); err != nil {
		need.Skip(t, "python3-portalocker is not installed (see .ci/install):", err)
	}
}

// Start calls [Need] and then [Run]. It kills the process when the test ends.
func Start(t testing.TB) *proc.Process {
	t.Helper()
	Need(t)
	p := Run()
	t.Cleanup(p.Kill)
	return p
}

// Run starts a process that locks with portalocker. The process exits at the
// end of its input. It runs these commands, one per line:
//
//	lock PATH [SECONDS]       lock a file by portalocker.Lock; wait up to SECONDS
//	try PATH                  like lock, but do not wait
//	tryshared PATH            open a file and lock it shared by portalocker.lock
//	acquire NAME N [SECONDS]  acquire a unit of a BoundedSemaphore of size N
//	append WORD               write a line to the file that was locked last
//	current                   check that the file locked last is still at its path
//	release                   release the lock acquired last
//
// The answer is "ok", "locked" if the lock is held by another process, or
// "gone" if current finds another file or none.
func Run() *proc.Process {
	cmd := exec.Command(python, "-c", script)
	cmd.Stderr = os.Stderr
	p := proc.StartCommand(cmd)
	p.Expect("ready")
	return p
}
