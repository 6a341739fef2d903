package lockedfile

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

func init() { children["increment"] = increment }

// increment adds one to the number in a file, many times, and prints a line for
// each time. About every other process does so without waiting for the disk.
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

func TestManyProcessesLoseNoTransform(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counter") // The processes compete to create it, too.
	processes, each := 10, 60
	if !longtest.Enabled() {
		each = 20
	}
	kit.Hammer(t, processes, 1, func(int) {
		if err := proc.Command("increment", path, strconv.Itoa(each)).Run(); err != nil {
			t.Error(err)
		}
	})
	wantFile(t, path, strconv.Itoa(processes*each))
}

// TestKilledProcessesLoseNoTransform kills processes that count. No change that
// a process reported is lost. The change that it was making when it was killed
// may be done or not.
func TestKilledProcessesLoseNoTransform(t *testing.T) {
	path := filepath.Join(t.TempDir(), "counter")
	var mu sync.Mutex
	done, kills := 0, 0
	lives := 30
	if !longtest.Enabled() {
		lives = 8
	}
	kit.Hammer(t, 6, 1, func(int) {
		for range lives {
			n, err := countAndKill(path)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			done += n
			kills++
			mu.Unlock()
		}
	})
	data, err := os.ReadFile(path)
	must(t, err)
	n, err := strconv.Atoi("0" + string(data))
	if err != nil || n < done || n > done+kills {
		t.Errorf("counted to %q after %d reports and %d kills", data, done, kills)
	}
	t.Logf("%d reports, %d in the file, %d kills", done, n, kills)
	must(t, Transform(bg, path, 0o600, addOne))
	wantNoFile(t, beside(path, ""))
}

// countAndKill has a process count in the file at path, and kills it soon after
// its first report. It returns how often the process reported.
func countAndKill(path string) (reports int, err error) {
	cmd := proc.Command("increment", path, "1000000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for in := bufio.NewScanner(out); in.Scan(); reports++ {
		if reports == 0 {
			time.AfterFunc(rand.N(60*time.Millisecond), func() { cmd.Process.Kill() })
		}
	}
	cmd.Wait()
	return reports, nil
}
