package lockedfile

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/portalocker"
)

func TestFlockTakesPart(t *testing.T) {
	path := newFile(t, "old")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Flock(fd, unix.LOCK_SH))
	if data, err := Read(bg, path); err != nil || string(data) != "old" {
		t.Error(data, err)
	}
	written := start(func() error { return Write(bg, path, []byte("new"), 0) })
	wantBlocked(t, written)
	must(t, unix.Flock(fd, unix.LOCK_UN))
	must(t, finish(t, written))

	f := lockFile(t, path)
	fd2, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd2)
	if err := unix.Flock(fd2, unix.LOCK_SH|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Error(err)
	}
	must(t, f.Close())
	must(t, unix.Flock(fd2, unix.LOCK_EX|unix.LOCK_NB))
	read := start(func() error { _, err := Read(bg, path); return err })
	wantBlocked(t, read)
	must(t, unix.Flock(fd2, unix.LOCK_UN))
	must(t, finish(t, read))
}

func TestPortalockerTakesPart(t *testing.T) {
	p := portalocker.Start(t)
	path := newFile(t, "one\n")
	p.Ask("lock "+path, "ok")
	if err := TryWrite(path, nil, 0o600); !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
	w := start(func() error { return Append(bg, path, []byte("three\n"), 0o600) })
	wantBlocked(t, w)
	p.Ask("append two", "ok")
	p.Ask("release", "ok")
	must(t, finish(t, w))
	wantFile(t, path, "one\ntwo\nthree\n")

	f, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	p.Ask("try "+path, "locked")
	p.Ask("tryshared "+path, "ok")
	must(t, f.Close())
	w = start(func() error {
		return Transform(bg, path, 0o600, func(old []byte) ([]byte, error) { return append(old, "four\n"...), nil })
	})
	wantBlocked(t, w)
	p.Ask("release", "ok")
	must(t, finish(t, w))
	p.Ask("lock "+path, "ok") // the new file
	p.Ask("append five", "ok")
	p.Ask("release", "ok")
	wantFile(t, path, "one\ntwo\nthree\nfour\nfive\n")
}
