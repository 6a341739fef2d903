package atpath

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

func init() {
	children["replace"] = replace
	children["count"] = count
}

// flocked opens the file at path and locks it by flock(2).
func flocked(path string) (*os.File, error) {
	return Lock(context.Background(), Steps[*os.File]{
		Open: func() (*os.File, error) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if errors.Is(err, os.ErrNotExist) {
				err = ErrAgain
			}
			return f, err
		},
		Lock: func(f *os.File) error {
			for {
				if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
					return err
				}
			}
		},
		Current: func(f *os.File) (bool, error) { return IsAt(f, path, os.Lstat) },
		Discard: func(f *os.File) { f.Close() },
	})
}

// put puts a new file at path: over the old one, or after removing it.
func put(path string, remove bool) error {
	next := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(next, nil, 0o600); err != nil {
		return err
	}
	if remove {
		os.Remove(path)
	}
	return os.Rename(next, path)
}

// replace replaces the file at a path in a tight loop, without its lock.
func replace(args []string) {
	for i := 0; ; i++ {
		if err := put(args[0], i%2 == 0); err != nil {
			panic(err)
		}
		if i == 100 {
			fmt.Println("ready")
		}
	}
}

func TestLockWhileFileIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	p := proc.Start("replace", path)
	defer p.Kill()
	p.Expect("ready")
	before := kit.Descriptors(t, "self")
	locked, unstable := 0, 0
	for begin := time.Now(); time.Since(begin) < time.Second; {
		f, err := flocked(path)
		switch {
		case err == nil:
			locked++
			f.Close()
		case err == ErrUnstable && f == nil:
			unstable++
		default:
			t.Fatal(f, err)
		}
	}
	t.Logf("locked %d times, gave up %d times", locked, unstable)
	if locked == 0 {
		t.Error("never locked")
	}
	if after := kit.Descriptors(t, "self"); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// count adds one to the number in a file, many times. It holds the lock of
// another file for that, and often replaces that file before it unlocks it.
func count(args []string) {
	lock, counter := args[0], args[1]
	times, err := strconv.Atoi(args[2])
	if err != nil {
		panic(err)
	}
	for i := range times {
		f, err := flocked(lock)
		if err != nil {
			panic(err)
		}
		data, err := os.ReadFile(counter)
		if err != nil {
			panic(err)
		}
		n, err := strconv.Atoi(string(data))
		if err != nil {
			panic(err)
		}
		if err := os.WriteFile(counter, []byte(strconv.Itoa(n+1)), 0o600); err != nil {
			panic(err)
		}
		if i%3 > 0 {
			if err := put(lock, i%3 == 1); err != nil {
				panic(err)
			}
		}
		f.Close()
	}
	fmt.Println("done")
}

func TestLockExcludesWhileHoldersReplaceFile(t *testing.T) {
	const processes, each = 4, 300
	dir := t.TempDir()
	lock, counter := filepath.Join(dir, "lock"), filepath.Join(dir, "counter")
	for path, contents := range map[string]string{lock: "", counter: "0"} {
		if err := os.WriteFile(path, []byte(contents), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var all []*proc.Process
	for range processes {
		p := proc.Start("count", lock, counter, strconv.Itoa(each))
		defer p.Kill()
		all = append(all, p)
	}
	for _, p := range all {
		p.Expect("done")
	}
	data, err := os.ReadFile(counter)
	if want := strconv.Itoa(processes * each); err != nil || strings.TrimSpace(string(data)) != want {
		t.Errorf("counted to %s, want %s: %v", data, want, err)
	}
}
