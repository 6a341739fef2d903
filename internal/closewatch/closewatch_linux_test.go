//go:build !interlock_bsd

package closewatch

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
	"golang.org/x/sys/unix"
)

func init() { children["opener"] = opener }

// opener opens a file, and closes it when it is told to.
func opener(args []string) {
	f, err := os.Open(args[0])
	if err != nil {
		panic(err)
	}
	in := bufio.NewReader(os.Stdin)
	fmt.Println("open")
	in.ReadString('\n')
	f.Close()
	in.ReadString('\n')
}

var must = kit.Must

func newWatcher(t testing.TB) *Watcher {
	t.Helper()
	w, err := New()
	must(t, err)
	t.Cleanup(w.Close)
	return w
}

func newWaker(t testing.TB) *Waker {
	t.Helper()
	k, err := NewWaker()
	must(t, err)
	t.Cleanup(k.Close)
	return k
}

func newFile(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	return path
}

func add(t testing.TB, w *Watcher, path string) (file int) {
	t.Helper()
	file, err := w.Add(path)
	must(t, err)
	return file
}

// drain returns the files that w says have changed, each once.
func drain(w *Watcher) (files []int) {
	w.Drain(func(file int) {
		if !slices.Contains(files, file) {
			files = append(files, file)
		}
	})
	return files
}

// patience is for what happens unless something is broken, however slow the
// machine.
const patience = time.Minute

// wakes fails unless k wakes.
func wakes(t testing.TB, k *Waker, w *Watcher) {
	t.Helper()
	if woken, err := k.Wait(w, patience); !woken {
		t.Fatalf("it does not wake, %v", err)
	}
}

func sleeps(t testing.TB, k *Waker, w *Watcher) {
	t.Helper()
	if woken, err := k.Wait(w, 5*time.Millisecond); woken || err != nil {
		t.Errorf("it wakes: %t, %v", woken, err)
	}
}

// closeFile opens and closes a file.
func closeFile(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func TestEventWakes(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"closed", "killed", "moved", "replaced", "removed"} {
		must(t, os.WriteFile(path(name), nil, 0o600))
		openFile(t, path(name)) // or the end of the file would be an event as well
	}
	closer, killed := proc.Start("opener", path("closed")), proc.Start("opener", path("killed"))
	for _, p := range []*proc.Process{closer, killed} {
		t.Cleanup(p.Kill)
		p.Expect("open")
	}
	must(t, os.WriteFile(path("new"), nil, 0o600))
	w, k := newWatcher(t), newWaker(t)
	for name, event := range map[string]func() error{
		"closed":   func() error { closer.Say("close"); return nil },
		"killed":   func() error { killed.Kill(); return nil },
		"moved":    func() error { return os.Rename(path("moved"), path("moved away")) },
		"replaced": func() error { return os.Rename(path("new"), path("replaced")) },
		"removed":  func() error { return os.Remove(path("removed")) },
	} {
		t.Run(name, func(t *testing.T) {
			file := add(t, w, path(name))
			sleeps(t, k, w)
			must(t, event())
			wakes(t, k, w)
			if files := drain(w); !slices.Equal(files, []int{file}) {
				t.Errorf("files %d have changed, want %d", files, file)
			}
			drain(w) // later events of the same change
		})
	}
}

// The Go runtime sends a signal to a thread to take it from a goroutine.
func TestSignalDoesNotEndWait(t *testing.T) {
	w, k := newWatcher(t), newWaker(t)
	thread, done := make(chan int), make(chan time.Duration)
	const timeout = 200 * time.Millisecond
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		begin := time.Now()
		k.Wait(w, timeout)
		done <- time.Since(begin)
	}()
	tid := <-thread
	for {
		select {
		case d := <-done:
			if d < timeout {
				t.Errorf("it ended after %v", d)
			}
			return
		case <-time.After(time.Millisecond):
			must(t, unix.Tgkill(unix.Getpid(), tid, unix.SIGURG))
		}
	}
}

// A caller must learn that Wait did not wait.
func TestWaitThatIsRefused(t *testing.T) {
	w, k := newWatcher(t), newWaker(t)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 1
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	woken, err := k.Wait(w, time.Millisecond)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if woken || err != unix.EINVAL {
		t.Errorf("%t, %v, want EINVAL", woken, err)
	}
}

func TestWatcherTellsFilesApart(t *testing.T) {
	w, k := newWatcher(t), newWaker(t)
	paths := []string{newFile(t), newFile(t), newFile(t)}
	var files []int
	for _, path := range paths {
		files = append(files, add(t, w, path))
	}
	if again := add(t, w, paths[1]); again != files[1] {
		t.Errorf("a file that was added again is %d, was %d", again, files[1])
	}
	must(t, closeFile(paths[2]))
	must(t, closeFile(paths[1]))
	wakes(t, k, w)
	if got := drain(w); !slices.Equal(got, []int{files[2], files[1]}) {
		t.Errorf("files %d have changed, want %d and %d", got, files[2], files[1])
	}
}

func TestAddDoesNotFollowSymbolicLinks(t *testing.T) {
	w, k := newWatcher(t), newWaker(t)
	path := newFile(t)
	must(t, os.Symlink(path, path+".link"))
	add(t, w, path+".link")
	must(t, closeFile(path))
	sleeps(t, k, w)
	if _, err := w.Add(path + ".missing"); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
}

func TestDrainForgetsAllEvents(t *testing.T) {
	w, k := newWatcher(t), newWaker(t)
	paths := []string{newFile(t), newFile(t)}
	for _, path := range paths {
		add(t, w, path)
	}
	const events = 1000
	for i := range events {
		must(t, closeFile(paths[i%2])) // the kernel merges equal events in a row
	}
	drained := 0
	w.Drain(func(int) { drained++ })
	if drained != events {
		t.Errorf("%d events, want %d", drained, events)
	}
	sleeps(t, k, w)
	if files := drain(w); files != nil {
		t.Errorf("files %d have changed again", files)
	}
}

func TestDrainEndsThoughEventsKeepComing(t *testing.T) {
	w := newWatcher(t)
	paths := []string{newFile(t), newFile(t)}
	for _, path := range paths {
		add(t, w, path)
		must(t, closeFile(path))
	}
	for i := range 40 {
		must(t, closeFile(paths[i%2]))
	}
	drained := 0
	w.Drain(func(int) {
		must(t, closeFile(paths[drained%2]))
		if drained++; drained > 100_000 {
			t.Fatal("it does not end")
		}
	})
}

func TestWakeEndsWait(t *testing.T) {
	w, k, other := newWatcher(t), newWaker(t), newWaker(t)
	k.Wake()
	k.Wake()
	sleeps(t, other, w)
	wakes(t, k, w)
	sleeps(t, k, w) // both wake-ups are used up

	timer := time.AfterFunc(5*time.Millisecond, k.Wake)
	defer timer.Stop()
	wakes(t, k, w)
	sleeps(t, k, w)
}

func TestEventWakesAllWakers(t *testing.T) {
	w, k, other := newWatcher(t), newWaker(t), newWaker(t)
	path := newFile(t)
	add(t, w, path)
	must(t, closeFile(path))
	wakes(t, k, w)
	wakes(t, other, w)
	wakes(t, k, w) // the event was not drained
}

// A Waker that is closed leaves alone the descriptor that has its number now.
func TestWakeAfterClose(t *testing.T) {
	pipe := make([]int, 2)
	must(t, unix.Pipe2(pipe, unix.O_CLOEXEC|unix.O_NONBLOCK))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	k, err := NewWaker()
	must(t, err)
	k.Close()
	must(t, unix.Dup3(pipe[1], k.event, unix.O_CLOEXEC))
	defer unix.Close(k.event)
	k.Wake()
	if n, err := unix.Read(pipe[0], make([]byte, 8)); err != unix.EAGAIN {
		t.Errorf("Wake wrote %d bytes to another file, %v", n, err)
	}
}

func TestCloseLeavesNothingOpen(t *testing.T) {
	path := newFile(t)
	fd := openFile(t, path)
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(entries)
	}
	before := descriptors()
	w, err := New()
	must(t, err)
	k, err := NewWaker()
	must(t, err)
	s, err := OpenSpare(fd, path)
	must(t, err)
	s.Close()
	k.Close()
	w.Close()
	if after := descriptors(); after != before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

func TestCloseOfNil(t *testing.T) {
	var k *Waker
	k.Close()
	var s *Spare
	s.Close()
}

// withoutProc makes /proc missing for the time of the test.
func withoutProc(t testing.TB) {
	old := openFiles
	openFiles = filepath.Join(t.TempDir(), "missing") + "/"
	t.Cleanup(func() { openFiles = old })
}

// openFile opens the file for the time of the test.
func openFile(t testing.TB, path string) (fd int) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestSpareWakesWatchers(t *testing.T) {
	for name, prepare := range map[string]func(t testing.TB){"proc": func(testing.TB) {}, "path": withoutProc} {
		t.Run(name, func(t *testing.T) {
			prepare(t)
			w, k := newWatcher(t), newWaker(t)
			path := newFile(t)
			fd := openFile(t, path)
			s, err := OpenSpare(fd, path)
			must(t, err)
			add(t, w, path)
			sleeps(t, k, w)
			s.Close()
			wakes(t, k, w)
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
				t.Error("the file itself was closed: ", err)
			}
		})
	}
}

// A spare is of the file that is open, wherever that is by now.
func TestSpareOfFileThatIsGone(t *testing.T) {
	path := newFile(t)
	fd := openFile(t, path)
	must(t, os.Remove(path))
	s, err := OpenSpare(fd, path)
	must(t, err)
	defer s.Close()
	var want, got unix.Stat_t
	must(t, unix.Fstat(fd, &want))
	must(t, unix.Fstat(s.fd, &got))
	if !same(&want, &got) {
		t.Error("it is of another file")
	}
}

// Without /proc, the path may lead to anything. OpenSpare opens only the file
// itself.
func TestSpareOpensNothingElse(t *testing.T) {
	withoutProc(t)
	for name, test := range map[string]struct {
		replace func(path string) error
		want    error
	}{
		"missing":  {func(string) error { return nil }, unix.ENOENT},
		"replaced": {func(path string) error { return os.WriteFile(path, nil, 0o600) }, errReplaced},
		"symlink":  {func(path string) error { return os.Symlink(path+".old", path) }, errReplaced},
		"FIFO":     {func(path string) error { return unix.Mkfifo(path, 0o600) }, errReplaced},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t)
			fd := openFile(t, path)
			must(t, os.Rename(path, path+".old"))
			must(t, test.replace(path))
			w, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
			must(t, err)
			defer unix.Close(w)
			if test.want == errReplaced {
				_, err = unix.InotifyAddWatch(w, path, unix.IN_OPEN|unix.IN_DONT_FOLLOW)
				must(t, err)
			}
			if s, err := OpenSpare(fd, path); !errors.Is(err, test.want) {
				s.Close()
				t.Errorf("%v, want %v", err, test.want)
			}
			if n, err := unix.Read(w, make([]byte, 4096)); err != unix.EAGAIN {
				t.Errorf("%d bytes of events, %v: it was opened", n, err)
			}
		})
	}
}

// The path may lead to another file by the time that it is opened.
func TestSpareWhilePathChanges(t *testing.T) {
	withoutProc(t)
	path := newFile(t)
	fd := openFile(t, path)
	must(t, os.WriteFile(path+".other", nil, 0o600))
	exchange := func() error {
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, path+".other", unix.RENAME_EXCHANGE)
	}
	if err := exchange(); err != nil {
		t.Skip("files cannot change places here:", err)
	}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				exchange()
			}
		}
	}()
	defer func() { close(stop); <-done }()
	var want, got unix.Stat_t
	must(t, unix.Fstat(fd, &want))
	opened := 0
	for range 3000 {
		s, err := OpenSpare(fd, path)
		if err == errReplaced {
			continue
		}
		must(t, err)
		must(t, unix.Fstat(s.fd, &got))
		s.Close()
		if opened++; !same(&want, &got) {
			t.Fatal("another file was opened")
		}
	}
	t.Logf("%d of 3000 tries found the file at the path", opened)
}

// Without /proc, OpenSpare opens only regular files: opening another file can
// have an effect on it.
func TestSpareOfFIFO(t *testing.T) {
	withoutProc(t)
	path := filepath.Join(t.TempDir(), "fifo")
	must(t, unix.Mkfifo(path, 0o600))
	if s, err := OpenSpare(openFile(t, path), path); err != errReplaced {
		s.Close()
		t.Errorf("%v, want %v", err, errReplaced)
	}
}

// The path counts only if /proc is missing, not if the process may not open the
// file again.
func TestSpareThatProcRefuses(t *testing.T) {
	path := newFile(t)
	old := openFiles
	openFiles = path + "/"
	defer func() { openFiles = old }()
	if s, err := OpenSpare(openFile(t, path), path); err != unix.ENOTDIR {
		s.Close()
		t.Errorf("%v, want ENOTDIR", err)
	}
}

// A process that lacks descriptors gets the error that says so.
func TestSpareWithoutDescriptors(t *testing.T) {
	path := newFile(t)
	fd := openFile(t, path)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 3
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	_, err := OpenSpare(fd, path)
	_, errWaker := NewWaker()
	_, errWatcher := New()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	for _, err := range []error{err, errWaker, errWatcher} {
		if !errors.Is(err, unix.EMFILE) {
			t.Error(err)
		}
	}
}
