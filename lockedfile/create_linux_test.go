package lockedfile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

func init() { children["nolinks"] = nolinks }

func TestNewFileIsLockedWhenItAppears(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	r := newRequest(bg, "write", path, 0o600)
	created, err := r.link(path, os.O_RDWR, []byte("new"))
	must(t, err)
	defer release(created)
	wantNewAndLocked(t, path)
}

func TestNewFileForReadingIsLockedShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	r := newReadRequest(bg, "open", path, 0o600)
	created, err := r.link(path, os.O_RDONLY, nil)
	must(t, err)
	defer release(created)
	if err := TryWrite(path, nil, 0); !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
	reader, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	must(t, reader.Close())
}

func TestNewFileHasPermAndUmask(t *testing.T) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	for _, op := range []string{"write", "transform", "append"} {
		path := filepath.Join(t.TempDir(), "data")
		must(t, ops[op](path))
		wantMode(t, path, 0o600)
		must(t, Write(bg, path+"2", nil, 0o666))
		wantMode(t, path+"2", 0o640)
	}
}

func TestFileThatOtherProcessCreatesFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	r := newRequest(bg, "write", path, 0o600)
	f, err := r.open(os.O_RDWR, func(path string) (*file, error) {
		must(t, os.WriteFile(path, []byte("theirs"), 0o600))
		return r.create(path, os.O_RDWR, []byte("ours"))
	})
	must(t, err)
	f.discard()
	wantFile(t, path, "theirs")
}

func TestUncreateLeavesFileThatOthersRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	r := newReadRequest(bg, "open", path, 0o600)
	f, err := r.create(path, os.O_RDONLY, nil)
	must(t, err)
	defer release(f.File)
	reader, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	f.uncreate()
	wantFile(t, path, "")
	must(t, reader.Close())
	f.uncreate()
	wantNoFile(t, path)
}

func TestFailedTransformLeavesWhatOthersWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	failure := errors.New("failure")
	err := Transform(bg, path, 0o600, func([]byte) ([]byte, error) {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0) // without a lock
		must(t, err)
		_, err = f.WriteString("theirs")
		must(t, err)
		return nil, cmp.Or(f.Close(), failure)
	})
	if err != failure {
		t.Error(err)
	}
	wantFile(t, path, "theirs")
}

func TestFileSystemWithoutHardLinks(t *testing.T) {
	for op := range ops {
		for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS, unix.EOPNOTSUPP} {
			path := filepath.Join(t.TempDir(), "data")
			if got := doWithout(op, path, unix.SYS_LINKAT, int(errno)); got != "ok" {
				t.Error(op, got)
			}
			want := string(large())
			if op == "shrink" {
				want = "new"
			}
			wantFile(t, path, want)
		}
	}
}

// nolinks starts a Transform that creates a file and fails, on a file system
// without hard links. The new file appears before it is locked. In between,
// another process appends to it, or the context is canceled.
func nolinks(args []string) {
	path, event := args[0], args[1]
	proc.Refuse(unix.SYS_LINKAT, unix.EPERM, -1)
	ctx, cancel := context.WithCancel(bg)
	r := newRequest(ctx, "transform", path, 0o600)
	lock := r.lock
	r.lock = func(f *os.File) error {
		r.lock = lock
		switch event {
		case "append":
			interlock.Must(0, Append(bg, path, []byte("precious"), 0))
		case "cancel":
			cancel()
		}
		return lock(f)
	}
	fmt.Println(r.transform(func(old []byte) ([]byte, error) { return nil, fmt.Errorf("called with %q", old) }))
}

func TestUnlockedNewFile(t *testing.T) {
	for event, want := range map[string]string{
		"append":  `called with "precious"`,
		"cancel":  "context canceled",
		"nothing": `called with ""`,
	} {
		path := filepath.Join(t.TempDir(), "data")
		p := proc.Start("nolinks", path, event)
		if got := p.Expect(""); got != want {
			t.Errorf("%s: got %s, want %s", event, got, want)
		}
		must(t, p.Close())
		if event == "append" {
			wantFile(t, path, "precious")
		} else {
			wantNoFile(t, path)
		}
	}
}
