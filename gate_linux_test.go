//go:build !interlock_bsd

package interlock

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/fault"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// withoutRights starts a locker that may not open its file again: as if it had given up the rights to.
func withoutRights(t *testing.T) (p *proc.Process, path string) {
	t.Helper()
	needRoot(t)
	path = filepath.Join(openDir(t, 0o777), "lock")
	p = asNobody(t, "locker", path)
	p.Expect("ready")
	must(t, os.Chown(path, 0, 0))
	must(t, os.Chmod(path, 0o600))
	return p, path
}

// silent fails if p says something.
func silent(t *testing.T, p *proc.Process) {
	t.Helper()
	if line, ok := p.Line(50 * time.Millisecond); ok {
		t.Fatal(line)
	}
}

// Nor does a reader pass a waiting writer that cannot open the gate.
func TestReaderWithoutRightsToTheGate(t *testing.T) {
	p, path := withoutRights(t)
	m, other := newMutex(t, path), newMutex(t, path)
	if !m.local {
		t.Skip("a gate beside the file it does not see either")
	}
	m.RLock()
	writer := start(func() error { return other.LockContext(t.Context()) })
	waitFor(t, "a writer at the gate", func() bool { return gated(m) })
	p.Say("rlock")
	silent(t, p)
	m.RUnlock()
	must(t, finish(t, writer))
	silent(t, p)
	other.Unlock()
	p.Expect("rlock ok")
	p.Ask("runlock", "runlock ok")
}

// And such a writer is not passed.
func TestWriterWithoutRightsToTheGate(t *testing.T) {
	p, path := withoutRights(t)
	m := newMutex(t, path)
	if !m.local {
		t.Skip("it cannot stand at a gate beside the file")
	}
	for range 2 {
		m.RLock()
		p.Say("lock")
		waitFor(t, "a writer at the gate", func() bool { return gated(m) })
		silent(t, p)
		p.Say("cancel")
		p.Expect("lock context canceled")
		if gated(m) {
			t.Fatal("the gate was not left")
		}
		p.Say("lock")
		waitFor(t, "a writer at the gate", func() bool { return gated(m) })
		m.RUnlock()
		p.Expect("lock ok")
		if gated(m) {
			t.Fatal("the gate was not left")
		}
		p.Ask("unlock", "unlock ok")
	}
}

// Without descriptors, too, a writer is not passed.
func TestWriterWithoutDescriptorsForTheGate(t *testing.T) {
	path := lockPath(t)
	m, reader, probe := newMutex(t, path), newMutex(t, path), newMutex(t, path)
	if !m.local {
		t.Skip("it cannot open a gate beside the file")
	}
	reader.RLock()
	restore := noDescriptors(t)
	writer := start(func() error { return m.LockContext(t.Context()) })
	waitFor(t, "a writer at the gate", func() bool { return probe.file.gateTaken(shared) })
	reader.RUnlock()
	must(t, finish(t, writer))
	restore()
	m.Unlock()
	if gated(m) {
		t.Error("the gate was not left")
	}
}

// Who cannot leave the gate does not keep others out of it.
func TestGateThatCannotBeLeft(t *testing.T) {
	needKernelWait(t)
	if !newMutex(t, lockPath(t)).local {
		t.Skip("who polls makes other calls each time")
	}
	fault.One(t, "faults", "leave the gate", "fcntl", "F_OFD_SETLK)", unix.ENOLCK)
	fault.One(t, "faults", "leave its own gate", "fcntl", "F_OFD_SETLK)", unix.ENOLCK)
	fault.One(t, "faults", "leave the queue", "fcntl", "F_OFD_SETLK)", unix.ENOLCK)
}

func init() {
	faults["leave the gate"] = func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Other("close-waiting", m.Path())
		c.Faults(func() {
			if c.Check(m.LockContext(bg), m.Path()) {
				m.Unlock()
			}
		})
		c.Other("close", m.Path())
		n := mutexWithFaults(c)
		if n.TryRLock() {
			n.RUnlock()
		} else {
			c.Errorf("nobody holds the lock or waits for it, and TryRLock fails")
		}
		n.Close()
		mutexWorks(c, m)
	}
	faults["leave its own gate"] = func(c *fault.Case) {
		m := mutexWithFaults(c)
		c.Other("flock", m.Path(), "ex")
		c.Other("close-waiting", m.Path())
		var limit unix.Rlimit
		c.Must(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
		low := limit
		low.Cur = 3
		c.Faults(func() {
			c.Must(unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
			if c.Check(m.LockContext(bg), m.Path(), unix.EMFILE) {
				m.Unlock()
			}
			c.Must(unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
		})
		c.Other("close", m.Path())
		n := mutexWithFaults(c)
		if n.TryLock() {
			done := start(func() error { m.Lock(); m.Unlock(); return nil }) // nor does it stand in its own way
			time.Sleep(time.Millisecond)
			n.Unlock()
			<-done
		} else {
			c.Errorf("nobody holds the lock or waits for it, and TryLock fails")
		}
		n.Close()
		mutexWorks(c, m)
	}
	faults["leave the queue"] = func(c *fault.Case) {
		s, n := semWithFaults(c, 1), semWithFaults(c, 1)
		c.Must(n.Acquire(bg, 1))
		c.Faults(func() {
			c.WhenWaiting(func() { n.Release(1) })
			if checkSem(c, s.Acquire(bg, 1)) {
				s.Release(1)
			}
		})
		if !n.TryAcquire(1) {
			c.Errorf("nobody has the unit or waits for it, and TryAcquire fails")
		} else {
			n.Release(1)
		}
		n.Close()
		semaphoreWorks(c, s)
	}
}
