package pidfile

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/wine"
	"go.uber.org/goleak"
)

// children are what the test binary does in processes of their own.
var children = map[string]proc.Func{"run": run, "contend": contend}

func TestMain(m *testing.M) {
	proc.Run(children)
	os.Setenv("GORACE", "atexit_sleep_ms=0") // of the children, which are many
	tmp := interlock.Must(os.MkdirTemp("", "interlock-test-*"))
	os.Setenv("TMPDIR", tmp)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(tmp)
		os.Exit(code)
	}))
}

// run is the program that runs only once at a time. It prints the error of Create, or ok, and runs until
// it is told to end.
func run(args []string) {
	f, err := Create(args[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ok")
	bufio.NewReader(os.Stdin).ReadString('\n')
	if err := f.Close(); err != nil {
		panic(err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "pid") }

func create(t testing.TB, path string) *File {
	t.Helper()
	f, err := Create(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// reads fails unless Read finds this.
func reads(t testing.TB, path string, pid int, running bool) {
	t.Helper()
	gotPID, gotRunning, err := Read(path)
	if gotPID != pid || gotRunning != running || err != nil {
		t.Errorf("Read: %d, %t, %v; not %d, %t", gotPID, gotRunning, err, pid, running)
	}
}

// refused fails unless Create finds that this process runs.
func refused(t testing.TB, path string, pid int) {
	t.Helper()
	f, err := Create(path)
	if err == nil {
		f.Close()
	}
	var running *RunningError
	if !errors.As(err, &running) || *running != (RunningError{path, pid}) || !errors.Is(err, interlock.ErrLocked) {
		t.Errorf("Create: %v; not that %d runs", err, pid)
	}
}

func TestSecondInstance(t *testing.T) {
	path := newPath(t)
	if _, _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	p := proc.Start("run", path)
	defer p.Kill()
	p.Expect("ok")
	if data, err := os.ReadFile(path); err != nil || string(data) != strconv.Itoa(p.Pid())+"\n" {
		t.Errorf("%q, %v", data, err)
	}
	reads(t, path, p.Pid(), true)
	refused(t, path, p.Pid())
	must(t, p.Close())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("not removed:", err)
	}

	f := create(t, path)
	reads(t, path, os.Getpid(), true)
	refused(t, path, os.Getpid())
	second := proc.Start("run", path)
	second.Expect(fmt.Sprintf("pidfile %s: runs already, with PID %d", path, os.Getpid()))
	must(t, second.Close())
	must(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestTakeoverAfterKill(t *testing.T) {
	path := newPath(t)
	for range 5 {
		p := proc.Start("run", path)
		p.Expect("ok")
		p.Kill()
		reads(t, path, p.Pid(), false)
	}
	f := create(t, path)
	reads(t, path, os.Getpid(), true)
	must(t, f.Close())
	for _, left := range []string{
		"12345678901234567890\n",   // longer than what comes in its place
		"\x00\x00\x00\x00\x00\x00", // what a power failure leaves of what was not on the disk yet
	} {
		must(t, os.WriteFile(path, []byte(left), 0o600))
		f := create(t, path)
		reads(t, path, os.Getpid(), true)
		must(t, f.Close())
	}
}

// What was never a PID file is left as it is.
func TestNotOverAnythingElse(t *testing.T) {
	path := newPath(t)
	const contents = "precious\n"
	must(t, os.WriteFile(path, []byte(contents), 0o600))
	_, err := Create(path)
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != path {
		t.Error(err)
	}
	if data, err := os.ReadFile(path); string(data) != contents {
		t.Error(string(data), err)
	}
	if _, _, err := Read(newPath(t) + "/"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, dir := range []string{path + "/", newPath(t) + "/"} {
		if _, err := Create(dir); !errors.As(err, &pathErr) || pathErr.Path != dir {
			t.Error(err)
		}
		if _, err := os.Lstat(strings.TrimSuffix(dir, "/")); dir != path+"/" && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestChildDoesNotKeepIt(t *testing.T) {
	path := newPath(t)
	f := create(t, path)
	child := proc.Start("run", newPath(t))
	defer child.Kill()
	child.Expect("ok")
	must(t, f.Close())
	create(t, path)
}

func TestCloseDoesNotRemoveTheFileOfAnother(t *testing.T) {
	path := newPath(t)
	f := create(t, path)
	if runtime.GOOS == "windows" {
		t.Skip("in Windows an open file cannot be removed")
	}
	must(t, os.Remove(path))
	second := create(t, path) // whoever removed it, asked for that
	must(t, f.Close())
	reads(t, path, os.Getpid(), true)
	refused(t, path, os.Getpid())
	must(t, second.Close())
}

func TestCloseFindsTheFileFromElsewhere(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	f := create(t, "pid")
	t.Chdir(t.TempDir())
	must(t, f.Close())
	if _, err := os.Stat(filepath.Join(dir, "pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("not removed:", err)
	}
}

func TestContentsThatAreNoPID(t *testing.T) {
	for _, contents := range []string{"", "12", "abc\n", "-1\n", "0\n", "1 2\n", "99999999999\n", "\x00\x00", strings.Repeat("1", 100)} {
		path := newPath(t)
		must(t, os.WriteFile(path, []byte(contents), 0o600))
		var pathErr *fs.PathError
		if pid, running, err := Read(path); pid != 0 || running || !errors.As(err, &pathErr) || pathErr.Path != path {
			t.Errorf("%q: %d, %t, %v", contents, pid, running, err)
		}
		f, err := os.Open(path)
		must(t, err)
		must(t, interlock.Lock(context.Background(), f))
		if pid, running, err := Read(path); pid != 0 || !running || !errors.As(err, &pathErr) {
			t.Errorf("%q: %d, %t, %v", contents, pid, running, err)
		}
		refused(t, path, 0)
		f.Close()
	}
}

// Read's shared lock is not taken for an instance that runs.
func TestReadersDoNotKeepAnybodyOut(t *testing.T) {
	path := newPath(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					Read(path)
					if runtime.GOOS == "windows" { // to open a file takes long, and the lock would never be free
						time.Sleep(time.Millisecond)
					}
				}
			}
		})
	}
	times := 300
	if testing.Short() {
		times = 50
	}
	for range times {
		f, err := Create(path)
		// On a busy machine, its second can be over before it has looked often enough.
		for begin := time.Now(); errors.Is(err, interlock.ErrLocked) && time.Since(begin) < time.Minute; {
			f, err = Create(path)
		}
		if err != nil {
			t.Error(err)
			break
		}
		f.Close()
	}
	close(stop)
	wg.Wait()

	must(t, os.WriteFile(path, nil, 0o600))
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	must(t, interlock.RLock(context.Background(), f))
	var running *RunningError
	if _, err := Create(path); !errors.Is(err, interlock.ErrLocked) || errors.As(err, &running) {
		t.Error(err)
	}
}

// Nobody refers to the File any more, and yet it is held.
func TestNotGarbage(t *testing.T) {
	path := newPath(t)
	_, err := Create(path)
	must(t, err)
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	refused(t, path, os.Getpid())
	files.Range(func(f, _ any) bool {
		f.(*File).Close()
		return true
	})
}

// contend gets the file again and again, and gives it up again. It says so if at that time another
// does as well, by what is called a marker: something that only one can have, and that does not
// depend on locks.
func contend(args []string) {
	path, marker := args[0], args[0]+".holder"
	fmt.Println("ready")
	for {
		f, err := Create(path)
		if errors.Is(err, interlock.ErrLocked) {
			time.Sleep(rand.N(2 * time.Millisecond))
			continue
		}
		if err != nil {
			fmt.Println("violation:", err)
			return
		}
		unmark, err := mark(marker)
		if err != nil {
			fmt.Println("violation:", err)
			return
		}
		if pid, running, err := Read(path); pid != os.Getpid() || !running || err != nil {
			fmt.Println("violation: Read:", pid, running, err)
			return
		}
		time.Sleep(rand.N(time.Millisecond))
		if err := unmark(); err != nil {
			fmt.Println("violation:", err)
			return
		}
		fmt.Println("held")
		if err := f.Close(); err != nil {
			fmt.Println("violation:", err)
			return
		}
	}
}

func TestExactlyOneOfAHundredAtAnyInstant(t *testing.T) {
	path := newPath(t)
	var mu sync.Mutex
	held, kills := 0, 0
	length, processes := 4*time.Second, 100
	if testing.Short() {
		length, processes = length/4, 30
	}
	deadline := time.Now().Add(length)
	var wg sync.WaitGroup
	if wine.Here() { // it starts them slowly
		processes = min(processes, 20)
	}
	for range processes {
		wg.Go(func() {
			for {
				p := proc.Start("contend", path)
				p.Expect("ready")
				life := time.After(rand.N(3 * time.Second))
				for alive := true; alive; {
					select {
					case <-life:
						alive = false
					default:
						switch line, _ := p.Line(10 * time.Millisecond); line {
						case "held":
							mu.Lock()
							held++
							mu.Unlock()
						case "":
						default:
							t.Error(line)
							alive = false
						}
					}
				}
				p.Kill()
				mu.Lock()
				kills++
				mu.Unlock()
				if t.Failed() || time.Now().After(deadline) {
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("held %d times, %d kills", held, kills)
	if held < 20 {
		t.Error("hardly ever held")
	}
	f := create(t, path)
	reads(t, path, os.Getpid(), true)
	must(t, f.Close())
}
