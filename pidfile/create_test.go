package pidfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
)

func TestSecondInstanceIsRefused(t *testing.T) {
	path := newPath(t)
	p := proc.Start("run", path)
	defer p.Kill()
	p.Expect("ok")
	if data, err := os.ReadFile(path); err != nil || string(data) != strconv.Itoa(p.Pid())+"\n" {
		t.Errorf("%q, %v", data, err)
	}
	wantRead(t, path, p.Pid(), true)
	wantRunning(t, path, p.Pid())
	must(t, p.Close())

	mustCreate(t, path)
	wantRunning(t, path, os.Getpid())
	second := proc.Start("run", path)
	second.Expect(fmt.Sprintf("pidfile %s: already running (PID %d)", path, os.Getpid()))
	must(t, second.Close())
}

func TestCreateTakesOverAfterKill(t *testing.T) {
	path := newPath(t)
	for range 5 {
		p := proc.Start("run", path)
		p.Expect("ok")
		p.Kill()
		wantRead(t, path, p.Pid(), false)
	}
	mustCreate(t, path)
	wantRead(t, path, os.Getpid(), true)
}

func TestCreateTakesOverLeftovers(t *testing.T) {
	for _, left := range []string{
		"12345678901234567890\n",   // longer than a process ID
		"\x00\x00\x00\x00\x00\x00", // from a power failure
	} {
		path := newPath(t)
		must(t, os.WriteFile(path, []byte(left), 0o600))
		f := mustCreate(t, path)
		wantRead(t, path, os.Getpid(), true)
		must(t, f.Close())
	}
}

func TestCreateLeavesOtherFilesAlone(t *testing.T) {
	for _, contents := range []string{"precious\n", strings.Repeat("1", maxSize)} {
		path := newPath(t)
		must(t, os.WriteFile(path, []byte(contents), 0o600))
		_, err := Create(path)
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != path || !errors.Is(err, errNoPID) {
			t.Error(err)
		}
		if data, err := os.ReadFile(path); string(data) != contents {
			t.Error(string(data), err)
		}
	}
}

func TestPathThatEndsInSeparator(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, []byte("1\n"), 0o600))
	missing := newPath(t)
	for _, dir := range []string{path + "/", missing + "/"} {
		var pathErr *fs.PathError
		if _, err := Create(dir); !errors.As(err, &pathErr) || pathErr.Path != dir {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, _, err := Read(missing + "/"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestReadersDoNotStopCreate(t *testing.T) {
	path := newPath(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				select {
				case <-stop:
					return
				default:
					Read(path)
				}
				if runtime.GOOS == "windows" {
					// Opening a file is slow, and the lock
					// would never be free.
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	times := 300
	if !longtest.Enabled() {
		times = 30
	}
	for range times {
		f, err := Create(path)
		// On a busy machine, its second can be over before it has tried
		// often enough.
		for begin := time.Now(); errors.Is(err, interlock.ErrLocked) && !errors.As(err, new(*RunningError)) && time.Since(begin) < time.Minute; {
			f, err = Create(path)
		}
		if err != nil {
			t.Error(err)
			break
		}
		f.Close()
	}
	close(stop)
	readers.Wait()
}

func TestCreateOutlastsReader(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, interlock.RLock(context.Background(), f))
	unlocked := make(chan error, 1)
	time.AfterFunc(patience/10, func() { unlocked <- interlock.Unlock(f) })
	mustCreate(t, path)
	must(t, <-unlocked)
}

func TestCreateGivesUpOnSharedLock(t *testing.T) {
	path := newPath(t)
	must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, interlock.RLock(context.Background(), f))
	begin := time.Now()
	_, err = Create(path)
	if errors.As(err, new(*RunningError)) || !errors.As(err, new(*fs.PathError)) || !errors.Is(err, interlock.ErrLocked) {
		t.Error(err)
	}
	if took := time.Since(begin); took < patience {
		t.Errorf("gave up after %v", took)
	}
}

func TestFileIsHeldAlthoughUnreferenced(t *testing.T) {
	path := newPath(t)
	_, err := Create(path)
	must(t, err)
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	wantRunning(t, path, os.Getpid())
	files.Range(func(f, _ any) bool {
		f.(*File).Close()
		return true
	})
}

func TestRunningErrorText(t *testing.T) {
	for _, c := range []struct {
		err  RunningError
		want string
	}{
		{RunningError{"app.pid", 123}, "pidfile app.pid: already running (PID 123)"},
		{RunningError{"app.pid", 0}, "pidfile app.pid: already running"},
	} {
		if got := c.err.Error(); got != c.want || strings.Contains(got, "\n") {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
