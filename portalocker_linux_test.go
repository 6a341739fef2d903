//go:build !interlock_bsd

package interlock

import (
	"os"
	"testing"

	"github.com/interlock-go/interlock/internal/portalocker"
)

func TestPortalockerSharesSemaphore(t *testing.T) {
	name := semName(t)
	p := portalocker.Start(t)
	acquire, try := "acquire "+name+" 2", "acquire "+name+" 2 0"
	s := newSemaphore(t, name, 2)
	p.Ask(acquire, "ok")
	wantTry(t, s, 2, false)
	wantTry(t, s, 1, true)
	p.Ask(try, "locked")
	second := acquiring(t.Context(), s, 1)
	pending(t, second)
	p.Ask("release", "ok")
	must(t, finish(t, second))
	p.Say(acquire)
	if line, ok := p.Line(moment); ok {
		t.Fatal(line)
	}
	s.Release(1)
	p.Expect("ok")
	w := acquiring(t.Context(), s, 1)
	pending(t, w)
	p.Kill() // its unit is free now
	must(t, finish(t, w))
	s.Release(2)
}

func TestPortalockerSharesLock(t *testing.T) {
	path := lockPath(t)
	p := portalocker.Start(t)
	m := newMutex(t, path)
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	p.Ask("lock "+path, "ok")
	if m.TryLock() || m.TryRLock() || TryRLock(f) == nil {
		t.Error("locked beside portalocker's lock")
	}
	w := start(func() error { return m.LockContext(t.Context()) })
	pending(t, w)
	p.Ask("release", "ok")
	must(t, finish(t, w))
	p.Ask("try "+path, "locked")
	p.Ask("tryshared "+path, "locked")
	p.Say("lock " + path)
	if line, ok := p.Line(moment); ok {
		t.Fatal(line)
	}
	m.Unlock()
	p.Expect("ok")
	p.Ask("release", "ok")
	must(t, RLock(t.Context(), f))
	p.Ask("try "+path, "locked")
	p.Ask("tryshared "+path, "ok")
	if m.TryLock() || !m.TryRLock() {
		t.Error("readers do not share the lock")
	}
	m.RUnlock()
	must(t, Unlock(f))
	p.Kill()
	m.Lock()
	m.Unlock()
}
