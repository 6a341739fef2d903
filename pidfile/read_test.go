package pidfile

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/interlock-go/interlock"
)

func TestReadWithoutFile(t *testing.T) {
	if pid, running, err := Read(newPath(t)); pid != 0 || running || !errors.Is(err, fs.ErrNotExist) {
		t.Error(pid, running, err)
	}
}

func TestReadWithoutPID(t *testing.T) {
	for _, contents := range []string{"", "12", "abc\n", "-1\n", "0\n", "1 2\n", "99999999999\n", "\x00\x00", strings.Repeat("1", 100)} {
		path := newPath(t)
		must(t, os.WriteFile(path, []byte(contents), 0o600))
		wantErr := func(wantRunning bool) {
			t.Helper()
			pid, running, err := Read(path)
			var pathErr *fs.PathError
			if pid != 0 || running != wantRunning || !errors.As(err, &pathErr) || pathErr.Path != path {
				t.Errorf("%q: %d, %t, %v", contents, pid, running, err)
			}
		}
		wantErr(false)
		f, err := os.Open(path)
		must(t, err)
		must(t, interlock.Lock(context.Background(), f))
		wantErr(true)
		wantRunning(t, path, 0)
		f.Close()
	}
}
