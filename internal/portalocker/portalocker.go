// Package portalocker runs Python's portalocker, for tests that it takes part in the same locks.
package portalocker

import (
	"os"
	"os/exec"
	"testing"

	"github.com/interlock-go/interlock/internal/proc"
)

// script does what it is told, a line a call, and answers "ok" or "locked".
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
    'lock': lambda path: lock(path, timeout=60, check_interval=0.01),
    'try': lambda path: lock(path, fail_when_locked=True),
    'tryshared': lambda path: handle(path, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING),
    'append': lambda word: print(word, file=held[-1].fh, flush=True),
    'acquire': lambda path, size: acquire(path, size, 60),
    'tryacquire': lambda path, size: acquire(path, size, 0),
    'release': lambda: held.pop().release(),
}
answers = sys.stdout
print('ready', file=answers, flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        with contextlib.redirect_stdout(io.StringIO()): # some versions print as they lock
            commands[words[0]](*words[1:])
        answer = 'ok'
    except portalocker.exceptions.BaseLockException:
        answer = 'locked'
    print(answer, file=answers, flush=True)
`

// Start starts a process that locks by Debian's python3-portalocker. Without that, the test is skipped,
// unless INTERLOCK_NEED is set. The lines that it takes are
//
//	lock PATH, try PATH          portalocker.Lock; try fails at once
//	append WORD                  writes a line to what was locked last
//	tryshared PATH               portalocker.lock of a file that it opens
//	acquire NAME N               a BoundedSemaphore of size N; so does tryacquire, without waiting
//	release                      what it got last
//
// and it answers "ok" or "locked".
func Start(t testing.TB) *proc.Process {
	t.Helper()
	const python = "/usr/bin/python3" // which is Debian's, whatever else is called so
	if err := exec.Command(python, "-c", "import portalocker").Run(); err != nil {
		if os.Getenv("INTERLOCK_NEED") != "" {
			t.Fatal("python3-portalocker: ", err)
		}
		t.Skip("python3-portalocker is not installed (see .ci/install)")
	}
	cmd := exec.Command(python, "-c", script)
	cmd.Stderr = os.Stderr
	p := proc.StartCommand(cmd)
	t.Cleanup(p.Kill)
	p.Expect("ready")
	return p
}
