package lockedfile

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
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
	"github.com/interlock-go/interlock/internal/opened"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/wine"
	"go.uber.org/goleak"
)

// children are what the test binary does in processes of their own.
var children = map[string]proc.Func{
	"increment": increment,
}

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

var bg = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newFile is the path of a file with these contents.
func newFile(t testing.TB, contents string) string {
	path := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(path, []byte(contents), 0o600))
	return path
}

// holds fails unless the file at path has these contents, and nothing lies beside it.
func holds(t testing.TB, path, want string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	if string(data) != want {
		t.Errorf("%s holds %.80q (%d bytes), not %.80q (%d bytes)", path, data, len(data), want, len(want))
	}
	alone(t, path)
}

// alone fails if a temporary file is in the directory of path.
func alone(t testing.TB, path string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*lockedfile*"))
	must(t, err)
	if len(left) > 0 {
		t.Error("left behind:", left)
	}
}

// unlocked fails if somebody has the lock of the file at path.
func unlocked(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	if err := interlock.TryLock(f); err != nil {
		t.Error(err)
	}
}

// hold locks the file at path for the time of the test, or until it is closed.
func hold(t testing.TB, path string) *File {
	t.Helper()
	f, err := OpenFile(bg, path, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

// start runs call on a goroutine and returns a channel with its result.
func start(call func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- call() }()
	return done
}

// finish waits for a result of start, however slow the machine.
func finish(t testing.TB, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("still waiting")
		return nil
	}
}

// pending fails if a result of start is there already.
func pending(t testing.TB, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
}

func addOne(old []byte) ([]byte, error) {
	n := 0
	if len(old) > 0 {
		var err error
		if n, err = strconv.Atoi(string(old)); err != nil {
			return nil, err
		}
	}
	return strconv.AppendInt(nil, int64(n+1), 10), nil
}

// increment adds one to the number in a file, so and so often, and prints a line for each that
// is done. Every other process of many does so without waiting for the disk.
func increment(args []string) {
	ctx := bg
	if os.Getpid()%2 == 0 {
		ctx = WithoutSync(bg)
	}
	for range interlock.Must(strconv.Atoi(args[1])) {
		if err := Transform(ctx, args[0], 0o600, addOne); err != nil {
			panic(err)
		}
		fmt.Println("one")
	}
}

func TestTransformsOfManyProcessesLoseNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counter") // does not exist: they race to create it, too
	const processes, each = 10, 60
	var wg sync.WaitGroup
	for range processes {
		wg.Go(func() {
			if err := proc.Command("increment", path, strconv.Itoa(each)).Run(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	holds(t, path, strconv.Itoa(processes*each))
}

// What a process was told is done, is there, whoever is killed meanwhile. Of what it was doing
// when it was killed, each may be done or not.
func TestTransformsLoseNothingWhileOthersAreKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counter")
	var mu sync.Mutex
	done, kills := 0, 0
	var wg sync.WaitGroup
	lives := 30
	if testing.Short() {
		lives = 8
	}
	for range 6 {
		wg.Go(func() {
			for range lives {
				cmd := proc.Command("increment", path, "1000000")
				out, err := cmd.StdoutPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				n := 0
				for in := bufio.NewScanner(out); in.Scan(); n++ {
					if n == 0 {
						time.AfterFunc(rand.N(60*time.Millisecond), func() { cmd.Process.Kill() })
					}
				}
				cmd.Wait()
				mu.Lock()
				done += n
				kills++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	must(t, err)
	n, err := strconv.Atoi("0" + string(data))
	if err != nil || n < done || n > done+kills {
		t.Errorf("counted to %q, but %d are done, and %d killed", data, done, kills)
	}
	t.Logf("%d done, %d in the file, %d kills", done, n, kills)
	must(t, Transform(bg, path, 0o600, addOne))
	if _, err := os.Stat(beside(path, "")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a leftover is still there")
	}
}

// replaces skips a test where a file is not replaced, but overwritten.
func replaces(t testing.TB) {
	t.Helper()
	if !canReplace {
		t.Skip("here a file is overwritten: an open one cannot be replaced")
	}
}

// hasMode fails unless the file at path has this mode, where files have more than one.
func hasMode(t testing.TB, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if runtime.GOOS != "windows" && info.Mode() != want {
		t.Error(info.Mode())
	}
}

func TestReadWaitsForWritersOnly(t *testing.T) {
	path := newFile(t, "old")
	reader, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	if data, err := Read(bg, path); err != nil || string(data) != "old" {
		t.Error(data, err)
	}
	writer := start(func() error { return Write(bg, path, []byte("new"), 0) })
	pending(t, writer)
	must(t, reader.Close())
	must(t, finish(t, writer))

	f := hold(t, path)
	read := start(func() error {
		data, err := Read(bg, path)
		if string(data) != "newer" {
			t.Errorf("%q", data)
		}
		return err
	})
	pending(t, read)
	f.WriteString("newer")
	must(t, f.Close())
	must(t, finish(t, read))
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestNothingIsTruncatedBeforeTheLock(t *testing.T) {
	for _, flag := range []int{os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREATE, os.O_RDWR | os.O_CREATE} {
		path := newFile(t, "old")
		f := hold(t, path)
		second := make(chan *File, 1)
		opened := start(func() error {
			g, err := OpenFile(bg, path, flag|os.O_TRUNC, 0o600)
			second <- g
			return err
		})
		pending(t, opened)
		holds(t, path, "old")
		must(t, f.Close())
		must(t, finish(t, opened))
		g := <-second
		if info, err := g.Stat(); err != nil || info.Size() != 0 {
			t.Error(info, err)
		}
		must(t, g.Close())
		holds(t, path, "")
	}
}

func TestOpenFileFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	if _, err := OpenFile(bg, path, os.O_RDWR, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	f, err := OpenFile(bg, path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	must(t, err)
	f.WriteString("old")
	must(t, f.Close())
	if _, err := OpenFile(bg, path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	f, err = OpenFile(WithoutSync(bg), path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	must(t, err)
	f.WriteString(" and new")
	must(t, f.Close())
	holds(t, path, "old and new")
}

// While they wait, the file is replaced, by others and by each other.
func TestWaitersOfAReplacedFileMoveOn(t *testing.T) {
	replaces(t)
	path := newFile(t, "1")
	f := hold(t, path)
	var all []<-chan error
	for range 5 {
		all = append(all, start(func() error { return Transform(bg, path, 0, addOne) }))
		all = append(all, start(func() error { return Append(bg, path, nil, 0) }))
		all = append(all, start(func() error { _, err := Read(bg, path); return err }))
	}
	for _, done := range all {
		pending(t, done)
	}
	other := newFile(t, "100")
	must(t, os.Rename(other, path))
	// Nobody who is in time for the new file waits for the holder of the old one.
	must(t, TryWrite(path, []byte("200"), 0))
	must(t, f.Close())
	for _, done := range all {
		must(t, finish(t, done))
	}
	holds(t, path, "205")

	f = hold(t, path)
	appended := start(func() error { return Append(bg, path, []byte("6"), 0o600) })
	pending(t, appended)
	must(t, os.Remove(path))
	must(t, f.Close())
	must(t, finish(t, appended))
	holds(t, path, "6")
}

func TestCancel(t *testing.T) {
	type call func(ctx context.Context, path string) error
	calls := map[string]call{
		"Read":      func(ctx context.Context, path string) error { _, err := Read(ctx, path); return err },
		"Write":     func(ctx context.Context, path string) error { return Write(ctx, path, []byte("new"), 0o600) },
		"Append":    func(ctx context.Context, path string) error { return Append(ctx, path, []byte("new"), 0o600) },
		"Transform": func(ctx context.Context, path string) error { return Transform(ctx, path, 0o600, addOne) },
		"JSON": func(ctx context.Context, path string) error {
			return TransformJSON(ctx, path, 0o600, func(n *int) error { *n++; return nil })
		},
		"OpenFile": func(ctx context.Context, path string) error {
			_, err := OpenFile(ctx, path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(bg)
			path := newFile(t, "1")
			f := hold(t, path)
			done := start(func() error { return call(ctx, path) })
			pending(t, done)
			cancel()
			if err := finish(t, done); err != ctx.Err() {
				t.Error(err)
			}
			must(t, f.Close())
			if err := call(ctx, path); err != ctx.Err() {
				t.Error(err)
			}
			holds(t, path, "1")
			unlocked(t, path)
			if err := call(ctx, path+"2"); err != ctx.Err() {
				t.Error(err)
			}
			if _, err := os.Stat(path + "2"); err == nil {
				t.Error("created")
			}
		})
	}
	t.Run("while f runs", func(t *testing.T) {
		ctx, cancel := context.WithCancel(bg)
		path := newFile(t, "1")
		if err := Transform(ctx, path, 0, func(old []byte) ([]byte, error) { cancel(); return addOne(old) }); err != ctx.Err() {
			t.Error(err)
		}
		holds(t, path, "1")
	})
}

func TestTryWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	must(t, TryWrite(path, []byte("one"), 0o600))
	must(t, TryWrite(path, []byte("two"), 0o600))
	f := hold(t, path)
	err := TryWrite(path, []byte("three"), 0o600)
	var pathErr *fs.PathError
	if !errors.Is(err, interlock.ErrLocked) || !errors.As(err, &pathErr) {
		t.Error(err)
	}
	must(t, f.Close())
	holds(t, path, "two")
}

func TestTransformUndone(t *testing.T) {
	failure := errors.New("failure")
	ways := map[string]func(t *testing.T, path string){
		"error": func(t *testing.T, path string) {
			if err := Transform(bg, path, 0o600, func([]byte) ([]byte, error) { return []byte("new"), failure }); err != failure {
				t.Error(err)
			}
		},
		"panic": func(t *testing.T, path string) {
			defer func() {
				if got := recover(); got != failure {
					t.Error(got)
				}
			}()
			Transform(bg, path, 0o600, func(old []byte) ([]byte, error) { clear(old); panic(failure) })
		},
		"JSON error": func(t *testing.T, path string) {
			if err := TransformJSON(bg, path, 0o600, func(n *int) error { *n = 5; return failure }); err != failure {
				t.Error(err)
			}
		},
		"not JSON": func(t *testing.T, path string) {
			var pathErr *fs.PathError
			err := TransformJSON(bg, path, 0o600, func(v *any) error { *v = make(chan int); return nil })
			if !errors.As(err, &pathErr) || pathErr.Path != path {
				t.Error(err)
			}
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			path := newFile(t, "1")
			way(t, path)
			holds(t, path, "1")
			unlocked(t, path)
			missing := filepath.Join(t.TempDir(), "missing")
			way(t, missing)
			if runtime.GOOS == "windows" { // an open file cannot be removed
				holds(t, missing, "")
			} else if _, err := os.Stat(missing); !errors.Is(err, fs.ErrNotExist) {
				t.Error("created:", err)
			}
			alone(t, missing)
		})
	}
}

func TestTransformOfTheSameWritesNothing(t *testing.T) {
	path := newFile(t, "same")
	before, err := os.Stat(path)
	must(t, err)
	must(t, Transform(bg, path, 0, func(old []byte) ([]byte, error) { return old, nil }))
	after, err := os.Stat(path)
	must(t, err)
	if !os.SameFile(before, after) || before.ModTime() != after.ModTime() {
		t.Error("written")
	}
	// Not the same, although the argument says so.
	must(t, Transform(bg, path, 0, func(old []byte) ([]byte, error) { old[0] = 'g'; return old, nil }))
	holds(t, path, "game")
}

func TestTransformOfNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	calls := 0
	must(t, Transform(bg, path, 0o640, func(old []byte) ([]byte, error) {
		calls++
		if len(old) != 0 {
			t.Errorf("%q", old)
		}
		if err := TryWrite(path, nil, 0); !errors.Is(err, interlock.ErrLocked) {
			t.Error("not locked meanwhile:", err)
		}
		return []byte("new"), nil
	}))
	holds(t, path, "new")
	hasMode(t, path, 0o640)
	if calls != 1 {
		t.Error(calls)
	}
}

func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	must(t, Append(bg, path, []byte("one"), 0o600))
	first, err := os.Stat(path)
	must(t, err)
	must(t, Append(WithoutSync(bg), path, []byte("two"), 0))
	holds(t, path, "onetwo")
	if second, err := os.Stat(path); err != nil || !os.SameFile(first, second) {
		t.Error("replaced", err)
	}
}

func TestJSONErrorsTellWhere(t *testing.T) {
	type config struct{ N int }
	for contents, offset := range map[string]string{
		`{"N": oops}`:      "byte 7:",
		`{"N": 1} trailer`: "byte 10:",
		`{"N": 1}{"N": 2}`: "byte 9:",
		`{"N": "one"}`:     "byte 11:",
		`{"N": 1`:          "byte 7:",
		" ":                "byte 1:",
	} {
		path := newFile(t, contents)
		err := TransformJSON(bg, path, 0, func(v *config) error { t.Error("called"); return nil })
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.Contains(err.Error(), offset) {
			t.Errorf("%s: %v", contents, err)
		}
		var syntax *json.SyntaxError
		var mismatch *json.UnmarshalTypeError
		if !errors.As(err, &syntax) && !errors.As(err, &mismatch) {
			t.Errorf("%s: %v", contents, err)
		}
		holds(t, path, contents)
	}
}

type nested struct{ N int }

func (n *nested) UnmarshalJSON(data []byte) error {
	if string(data) == `"own"` {
		return json.Unmarshal([]byte("{"), n)
	}
	type plain nested
	return json.Unmarshal(data, (*plain)(n))
}

// An offset in what a type has decoded by itself is none in the file.
func TestJSONErrorsTellNoWrongPlace(t *testing.T) {
	type config struct {
		Pad string
		In  nested
	}
	for contents, offset := range map[string]string{
		`{"Pad": "some", "In": {"N": "one"}}`: "",
		`{"Pad": "some", "In": "own"}`:        "",
		`{"Pad": 1, "In": {"N": 1}}`:          "byte 9:",
		`{"Pad": "some", "In": {"N": }}`:      "byte 29:",
	} {
		path := newFile(t, contents)
		err := TransformJSON(bg, path, 0, func(v *config) error { t.Error("called"); return nil })
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != path || !strings.Contains(err.Error(), cmp.Or(offset, path)) ||
			offset == "" && strings.Contains(err.Error(), "byte ") {
			t.Errorf("%s: %v", contents, err)
		}
		holds(t, path, contents)
	}
}

// Errors name what was called, and the file as it was named.
func TestErrorsOfTheLockNameTheCall(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, Write(bg, "data", nil, 0o600))
	hold(t, "data")
	err := TryWrite("data", nil, 0)
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Op != "write" || pathErr.Path != "data" || pathErr.Err != interlock.ErrLocked {
		t.Errorf("%#v", err)
	}
}

func TestSymbolicLinkIsFollowed(t *testing.T) {
	wine.Skip(t, "has no symbolic links")
	dir := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dir, "try")); runtime.GOOS == "windows" && err != nil {
		t.Skip(err) // it takes a privilege
	}
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	target := filepath.Join(dir, "sub", "data")
	link, first := filepath.Join(dir, "link"), filepath.Join(dir, "sub", "first")
	must(t, os.Symlink("sub/first", link))
	must(t, os.Symlink("data", first))
	// It dangles at first.
	must(t, Write(bg, link, []byte("1"), 0o600))
	holds(t, target, "1")
	must(t, Transform(bg, link, 0, addOne))
	must(t, Append(bg, link, []byte("0"), 0))
	holds(t, target, "20")
	for _, path := range []string{link, first} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSymlink {
			t.Error("replaced the link", err)
		}
	}
	must(t, os.Remove(target))
	must(t, os.Symlink("link", target+"2"))
	must(t, os.Remove(first))
	must(t, os.Symlink("../link", first))
	if err := Write(bg, link, nil, 0o600); err == nil {
		t.Error("a loop")
	}
}

func TestNames(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"short", strings.Repeat("long", 63), ".", "", "no/such/dir", "short/", "new/", "nul\x00"} {
		err := Write(bg, name, []byte("1"), 0o600)
		if err == nil {
			err = Transform(bg, name, 0, addOne)
		}
		if len(name) > 4 && !strings.ContainsAny(name, "/\x00") {
			must(t, err)
			holds(t, name, "2")
			continue
		}
		var pathErr *fs.PathError
		if !errors.As(err, &pathErr) || pathErr.Path != name {
			t.Errorf("%q: %v", name, err)
		}
	}
	alone(t, "short")
	if _, err := Read(bg, "new/"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if _, err := os.Lstat("new"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Who has the lock of a file that was taken away from under it changes nothing at its path, and is told.
func TestChangeOfAFileThatIsReplacedMeanwhile(t *testing.T) {
	if !canReplace {
		t.Skip("an open file cannot be removed here")
	}
	path := newFile(t, "1")
	err := Transform(bg, path, 0, func(old []byte) ([]byte, error) {
		must(t, os.Remove(path))
		must(t, Write(bg, path, []byte("100"), 0o600))
		must(t, Transform(bg, path, 0, func([]byte) ([]byte, error) { return []byte("101"), nil }))
		return []byte("2"), nil
	})
	var pathErr *fs.PathError
	if !errors.As(err, &pathErr) || pathErr.Path != path {
		t.Error(err)
	}
	holds(t, path, "101")
}

// That holds where a file is overwritten, too.
func TestOverwriteOfAFileThatIsGone(t *testing.T) {
	if !canReplace {
		t.Skip("an open file cannot be removed here")
	}
	path := newFile(t, "old")
	r := newRequest(bg, "write", path, 0)
	f, err := r.open(os.O_RDWR, nil)
	must(t, err)
	defer opened.Release(f.File)
	must(t, os.Rename(path, path+"2"))
	must(t, os.WriteFile(path, []byte("another"), 0o600))
	if err := r.overwrite(f, []byte("new")); err != errReplaced {
		t.Error(err)
	}
	holds(t, path, "another")
	holds(t, path+"2", "old")
}

// On a file system where a file never is the one at its path, the processor has something else to do.
func TestWhatNeverEndsIsNotAllThatIsDone(t *testing.T) {
	if !canReplace {
		t.Skip("an open file cannot be replaced here")
	}
	path := newFile(t, "old")
	ctx, cancel := context.WithTimeout(bg, 500*time.Millisecond)
	defer cancel()
	r := newRequest(ctx, "read", path, 0)
	rounds := 0
	r.lock = func(*os.File) error {
		rounds++
		must(t, os.WriteFile(path+"2", nil, 0o600))
		return os.Rename(path+"2", path)
	}
	if _, err := r.open(os.O_RDONLY, nil); err != ctx.Err() {
		t.Error(err)
	}
	if rounds > 2000 {
		t.Error(rounds)
	}
}

// A link that is changed while a file is made where it leads to, leaves none there.
func TestNoStrayFileWhereALinkLed(t *testing.T) {
	if !canReplace {
		t.Skip("an open file cannot be removed here")
	}
	dir := t.TempDir()
	link, elsewhere := filepath.Join(dir, "link"), filepath.Join(dir, "elsewhere")
	must(t, os.Symlink("elsewhere", link))
	for _, complete := range []bool{true, false} {
		r := newRequest(bg, "write", link, 0o600)
		calls := 0
		f, err := r.open(os.O_RDWR, func(path string) (*file, error) {
			if calls++; calls == 1 {
				must(t, os.Remove(link))
			}
			if !complete { // as without hard links
				return r.createEmpty(path, os.O_RDWR)
			}
			return r.create(path, os.O_RDWR, []byte("new"))
		})
		must(t, err)
		if f.path != link || calls != 2 {
			t.Error(f.path, calls)
		}
		must(t, opened.Release(f.File))
		if _, err := os.Lstat(elsewhere); !errors.Is(err, fs.ErrNotExist) {
			t.Error("left behind:", err)
		}
		must(t, os.Remove(link))
		must(t, os.Symlink("elsewhere", link))
	}
}

// Two who have each the lock of another file that was at the path do not disturb each other.
func TestHoldersOfTwoFilesAtOnePath(t *testing.T) {
	if !canReplace {
		t.Skip("an open file cannot be removed here")
	}
	path := newFile(t, "old")
	a, b := strings.Repeat("a", 3<<20), strings.Repeat("b", 8<<20)
	for range 5 {
		inside, goOn := make(chan bool), make(chan bool)
		first := start(func() error {
			return Transform(WithoutSync(bg), path, 0, func([]byte) ([]byte, error) { inside <- true; <-goOn; return []byte(a), nil })
		})
		<-inside
		must(t, os.Remove(path))
		must(t, Write(bg, path, []byte("old"), 0o600))
		second := start(func() error { return Write(WithoutSync(bg), path, []byte(b), 0) })
		close(goOn)
		for done := false; !done; {
			if info, err := os.Stat(path); err == nil && info.Size() != 3 && info.Size() != int64(len(b)) {
				t.Fatalf("%d bytes, which nobody wrote", info.Size())
			}
			select {
			case err := <-second:
				must(t, err)
				done = true
			default:
			}
		}
		if err := finish(t, first); err == nil {
			t.Error("a change of a file that is gone succeeded")
		}
		holds(t, path, b)
	}
}

// Which file it is, is settled when the call begins.
func TestThePathIsSettledAtTheStart(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"v1", "v2"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, d, "data"), []byte("1"), 0o600))
	}
	must(t, os.Symlink("v1", filepath.Join(dir, "current")))
	t.Chdir(filepath.Join(dir, "v1"))
	must(t, Transform(bg, "data", 0, func([]byte) ([]byte, error) { return []byte("2"), os.Chdir("../v2") }))
	holds(t, filepath.Join(dir, "v1/data"), "2")
	holds(t, filepath.Join(dir, "v2/data"), "1")
	wine.Skip(t, "has no symbolic links")
	must(t, Transform(bg, filepath.Join(dir, "current/data"), 0, func([]byte) ([]byte, error) {
		must(t, os.Remove(filepath.Join(dir, "current")))
		return []byte("3"), os.Symlink("v2", filepath.Join(dir, "current"))
	}))
	holds(t, filepath.Join(dir, "v1/data"), "3")
	holds(t, filepath.Join(dir, "v2/data"), "1")
}

func TestOpenFileLeavesNothingIfItFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	if _, err := OpenFile(bg, path, os.O_CREATE|os.O_TRUNC, 0o600); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	f, err := OpenFile(bg, path, os.O_CREATE, 0o600) // a shared lock on a new file
	must(t, err)
	other, err := OpenFile(bg, path, os.O_RDONLY, 0)
	must(t, err)
	must(t, f.Close())
	must(t, other.Close())
}

// An oddContext ends with an error that cannot be compared.
type oddContext struct{ context.Context }

type oddError []error

func (oddError) Error() string { return "odd" }

func (c oddContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return oddError{err}
	}
	return nil
}

func TestContextWhoseErrorCannotBeCompared(t *testing.T) {
	path := newFile(t, "data")
	f := hold(t, path)
	ctx, cancel := context.WithTimeout(bg, time.Millisecond)
	defer cancel()
	if _, err := Read(oddContext{ctx}, path); !errors.As(err, new(oddError)) {
		t.Error(err)
	}
	must(t, f.Close())
}
