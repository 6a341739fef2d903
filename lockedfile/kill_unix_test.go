//go:build unix

package lockedfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/proc"
)

func init() {
	children["turns"] = turns
	children["anew"] = anew
}

// two are contents that cannot be mistaken for a part or a mix of each other.
var two = [2]string{strings.Repeat("first", 10_000), strings.Repeat("second", 12_500)}

// turns changes each of several files by turns to the one and the other of two, all at once.
func turns(args []string) {
	ctx := bg
	if args[0] == "nosync" {
		ctx = WithoutSync(bg) // a crash of a process is no crash of the system
	}
	writers(args[1:], func(path string, i int) error {
		data := []byte(two[i%2])
		if i%3 == 0 {
			return Transform(ctx, path, 0, func([]byte) ([]byte, error) { return data, nil })
		}
		return Write(ctx, path, data, 0)
	})
}

// anew creates each of several files again and again.
func anew(args []string) {
	writers(args, func(path string, i int) error {
		time.Sleep(time.Millisecond)
		os.Remove(path)
		return Write(WithoutSync(bg), path, []byte(two[i%2]), 0o640)
	})
}

// writers calls write for each path, all at once, again and again, with numbers that count up from any. It is ready when each
// has been written once: to start may take longer than it lives.
func writers(paths []string, write func(path string, i int) error) {
	var once sync.WaitGroup
	once.Add(len(paths))
	for _, path := range paths {
		go func() {
			first := rand.N(6)
			for i := first; ; i++ {
				if err := write(path, i); err != nil {
					panic(err)
				}
				if i == first {
					once.Done()
				}
			}
		}()
	}
	once.Wait()
	fmt.Println("ready")
	select {}
}

// kills is how many writers are killed.
func kills() int {
	n, _ := strconv.Atoi(os.Getenv("INTERLOCK_KILLS"))
	switch {
	case n > 0:
		return n
	case testing.Short():
		return 60
	}
	return 2000
}

// killAtRandom runs child, with args and the paths, which has a writer on each path, again and again, and kills it,
// until n writers have been killed. After each kill it calls check for each path.
func killAtRandom(t *testing.T, n int, child string, args, paths []string, check func(path string)) {
	for range n / len(paths) {
		if t.Failed() {
			return
		}
		p := proc.Start(child, append(args, paths...)...)
		p.Expect("ready")
		time.Sleep(rand.N(5 * time.Millisecond))
		p.Kill()
		for _, path := range paths {
			check(path)
		}
	}
}

// owned returns the user and the group that a file belongs to.
func owned(t testing.TB, path string) [2]uint32 {
	info, err := os.Stat(path)
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return [2]uint32{st.Uid, st.Gid}
}

func TestKilledWriterLeavesOldOrNew(t *testing.T) {
	// Several at once, since each is idle now and then; and some that wait for the disk.
	groups := map[string][]string{}
	want := [2]uint32{uint32(os.Getuid()), uint32(os.Getgid())}
	for _, group := range []string{"nosync 1", "nosync 2", "sync"} {
		for range 4 {
			path := newFile(t, two[0])
			must(t, os.Chmod(path, 0o640))
			if os.Getuid() == 0 {
				want = [2]uint32{1234, 5678}
			}
			must(t, os.Chown(path, int(want[0]), int(want[1])))
			groups[group] = append(groups[group], path)
		}
	}
	// A reader that does not lock, all the time.
	stop := make(chan struct{})
	var reader, killers sync.WaitGroup
	reader.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if data, err := os.ReadFile(groups["nosync 1"][0]); err != nil || string(data) != two[0] && string(data) != two[1] {
				t.Errorf("a reader found %d bytes, %v", len(data), err)
				return
			}
		}
	})
	var mu sync.Mutex
	seen := map[string]int{}
	leftovers := 0
	for group, paths := range groups {
		killers.Go(func() {
			mode, _, _ := strings.Cut(group, " ")
			n := kills() / 2
			if mode == "sync" {
				n = kills() / 10 // who waits for a disk cannot be killed meanwhile
			}
			killAtRandom(t, n, "turns", []string{mode}, paths, func(path string) {
				data, err := os.ReadFile(path)
				if err != nil || string(data) != two[0] && string(data) != two[1] {
					t.Errorf("%d bytes that nobody wrote, %v", len(data), err)
				}
				hasMode(t, path, 0o640)
				if got := owned(t, path); got != want {
					t.Errorf("belongs to %v, not to %v", got, want)
				}
				left, _ := filepath.Glob(beside(path, "*"))
				mu.Lock()
				defer mu.Unlock()
				seen[string(data)]++
				leftovers += min(len(left), 1)
			})
		})
	}
	killers.Wait()
	close(stop)
	reader.Wait()
	t.Logf("%d times the one, %d the other; %d times in the middle", seen[two[0]], seen[two[1]], leftovers)
	if len(seen) < 2 || leftovers == 0 {
		t.Error("the kills came at no interesting moments")
	}
	for _, paths := range groups {
		for _, path := range paths {
			must(t, Write(bg, path, []byte("end"), 0))
			holds(t, path, "end")
		}
	}
}

func TestKilledCreatorLeavesNothingOrAll(t *testing.T) {
	var paths []string
	for range 4 {
		paths = append(paths, filepath.Join(t.TempDir(), "data"))
	}
	missing, whole := 0, 0
	killAtRandom(t, kills()/5, "anew", nil, paths, func(path string) {
		switch data, err := os.ReadFile(path); {
		case errors.Is(err, fs.ErrNotExist):
			missing++
		case err != nil || string(data) != two[0] && string(data) != two[1]:
			t.Errorf("%d bytes that nobody wrote, %v", len(data), err)
		default:
			whole++
		}
	})
	t.Logf("%d times missing, %d times whole", missing, whole)
	if kills() >= 1000 && (missing == 0 || whole == 0) {
		t.Error("the kills came at no interesting moments")
	}
}
