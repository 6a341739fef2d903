package locktest

import "context"

func killedOwner(t *rFixture) {
	p := t.process()
	killed, m, other := bindOwners(t.remote(p), t.open(), t.openRemote())
	t.do(killed.lock, killed.lock)
	waiters := []<-chan error{startFunc(m.lockAndUnlock), startFunc(m.lockAndUnlock), startFunc(other.lockAndUnlock)}
	t.blocks(waiters...)
	p.Kill()
	t.succeeds(waiters...)
}

func rKilledWaiter(t *rFixture) {
	p := t.process()
	killed, m, other := bindOwners(t.remote(p), t.open(), t.openRemote())
	t.do(m.lock)
	t.blocks(startContext(context.Background(), killed.lockContext))
	behind := startFunc(other.lockAndUnlock)
	t.blocks(behind)
	p.Kill()
	t.blocks(behind)
	t.do(m.unlock)
	t.succeeds(behind)
}

func rStoppedOwner(t *rFixture) {
	if !canStop {
		t.Skip("processes cannot be stopped here")
	}
	p := t.process()
	stopped, m, other := bindOwners(t.remote(p), t.open(), t.openRemote())
	t.do(stopped.lock)
	p.stop()
	waiters := []<-chan error{startFunc(m.lockAndUnlock), startFunc(other.lockAndUnlock)}
	t.blocks(waiters...)
	p.resume()
	t.blocks(waiters...)
	t.do(stopped.unlock)
	t.succeeds(waiters...)
}
