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
	"testing"
	"time"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
)

func init() {
	children["alternate"] = alternate
	children["recreate"] = recreate
}

// two are contents of which no part or mix looks like the other.
var two = [2]string{strings.Repeat("first", 10_000), strings.Repeat("second", 12_500)}

// alternate changes each of several files to one and the other of two, again
// and again.
func alternate(args []string) {
	ctx := bg
	if args[0] == "nosync" {
		ctx = WithoutSync(bg) // A killed process is not a crash of the system.
	}
	writeForever(args[1:], func(path string, i int) error {
		data := []byte(two[i%2])
		if i%3 == 0 {
			return Transform(ctx, path, 0, func([]byte) ([]byte, error) { return data, nil })
		}
		return Write(ctx, path, data, 0)
	})
}

// recreate removes and creates each of several files, again and again.
func recreate(args []string) {
	writeForever(args, func(path string, i int) error {
		time.Sleep(time.Millisecond)
		os.Remove(path)
		return Write(WithoutSync(bg), path, []byte(two[i%2]), 0o640)
	})
}

// writeForever calls write for each path, on a goroutine each, with numbers
// that count up from a random one. It prints "ready" when each path was written
// once.
func writeForever(paths []string, write func(path string, i int) error) {
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

// kills returns how many writers a test kills.
func kills() int {
	if n, _ := strconv.Atoi(os.Getenv("INTERLOCK_KILLS")); n > 0 {
		return n
	}
	if longtest.Enabled() {
		return 2000
	}
	return 60
}

// killAtRandom starts the child, which writes to each path, and kills it, until
// n writers have been killed. After each kill it calls check for each path.
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

func TestKilledWriterLeavesOldOrNew(t *testing.T) {
	// Several writers at once use the idle time of each other, and of those
	// that wait for the disk.
	groups := map[string][]string{}
	wantUID, wantGID := os.Getuid(), os.Getgid()
	if os.Getuid() == 0 {
		wantUID, wantGID = 1234, 5678
	}
	for _, group := range []string{"nosync 1", "nosync 2", "sync"} {
		for range 4 {
			path := newFile(t, two[0])
			must(t, os.Chmod(path, 0o640))
			must(t, os.Chown(path, wantUID, wantGID))
			groups[group] = append(groups[group], path)
		}
	}
	stop := make(chan struct{})
	reader := start(func() error { return readWithoutLock(groups["nosync 1"][0], stop) })
	var mu sync.Mutex
	seen := map[string]int{}
	leftovers := 0
	check := func(path string) {
		data, err := os.ReadFile(path)
		if err != nil || string(data) != two[0] && string(data) != two[1] {
			t.Errorf("%d bytes that no process wrote, %v", len(data), err)
		}
		wantMode(t, path, 0o640)
		if info, err := os.Stat(path); err != nil || uid(info) != wantUID || gid(info) != wantGID {
			t.Errorf("the owner changed: %v, %v", info, err)
		}
		left, _ := filepath.Glob(beside(path, "*"))
		mu.Lock()
		defer mu.Unlock()
		seen[string(data)]++
		leftovers += min(len(left), 1)
	}
	var killers sync.WaitGroup
	for group, paths := range groups {
		killers.Add(1)
		go func() {
			defer killers.Done()
			mode, _, _ := strings.Cut(group, " ")
			n := kills() / 2
			if mode == "sync" {
				n = kills() / 10 // A process that waits for the disk cannot be killed.
			}
			killAtRandom(t, n, "alternate", []string{mode}, paths, check)
		}()
	}
	killers.Wait()
	close(stop)
	if err := finish(t, reader); err != nil {
		t.Error(err)
	}
	t.Logf("%d times the one, %d the other; %d temporary files", seen[two[0]], seen[two[1]], leftovers)
	if len(seen) < 2 || leftovers == 0 {
		t.Error("no kill came at an interesting moment")
	}
	for _, paths := range groups {
		for _, path := range paths {
			must(t, Write(bg, path, []byte("end"), 0))
			wantFile(t, path, "end")
		}
	}
}

// readWithoutLock reads the file at path until stop is closed. It returns an
// error if the contents are not one of two.
func readWithoutLock(path string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(time.Millisecond):
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if string(data) != two[0] && string(data) != two[1] {
			return fmt.Errorf("a reader found %d bytes that no process wrote", len(data))
		}
	}
}

func TestKilledCreatorLeavesNothingOrAll(t *testing.T) {
	var paths []string
	for range 4 {
		paths = append(paths, filepath.Join(t.TempDir(), "data"))
	}
	missing, whole := 0, 0
	killAtRandom(t, kills()/5, "recreate", nil, paths, func(path string) {
		switch data, err := os.ReadFile(path); {
		case errors.Is(err, fs.ErrNotExist):
			missing++
		case err != nil || string(data) != two[0] && string(data) != two[1]:
			t.Errorf("%d bytes that no process wrote, %v", len(data), err)
		default:
			whole++
		}
	})
	t.Logf("%d times missing, %d times whole", missing, whole)
	if kills() >= 1000 && (missing == 0 || whole == 0) {
		t.Error("no kill came at an interesting moment")
	}
}
