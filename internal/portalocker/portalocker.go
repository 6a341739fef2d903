// Package portalocker runs Python's portalocker, for tests that it takes part in the same locks.
package portalocker

import (
	"os"
	"os/exec"
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
)

// script does what it is told, a line a call.
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

const python = "/usr/bin/python3" // which is Debian's, whatever else is called so

// Need skips a test without Debian's python3-portalocker, unless INTERLOCK_NEED is set.
func Need(t testing.TB) {
	t.Helper()
	if err := exec.Command(python, "-c", "import portalocker").Run(); err != nil {
		if os.Getenv("INTERLOCK_NEED") != "" {
			t.Fatal("python3-portalocker: ", err)
		}
		t.Skip("python3-portalocker is not installed (see .ci/install)")
	}
}

// Start starts a process for a test that has a [Need] for it.
func Start(t testing.TB) *proc.Process {
	t.Helper()
	Need(t)
	p := Run()
	t.Cleanup(p.Kill)
	return p
}

// Run starts a process that locks by portalocker. The lines that it takes are
//
//	lock PATH [SECONDS], try PATH  portalocker.Lock; try fails at once
//	append WORD                    writes a line to what was locked last
//	tryshared PATH                 portalocker.lock of a file that it opens
//	acquire NAME N [SECONDS]       a BoundedSemaphore of size N
//	current                        whether what it got last is still the file at its path
//	release                        what it got last
//
// and it answers "ok", "locked" or, to current, "gone". It ends with its input.
func Run() *proc.Process {
	cmd := exec.Command(python, "-c", script)
	cmd.Stderr = os.Stderr
	p := proc.StartCommand(cmd)
	p.Expect("ready")
	return p
}
