package pidfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/wine"
)

func init() { children["contend"] = contend }

// contend creates the PID file and closes it, again and again. In between it
// makes a marker, which does not depend on locks, and which only one process
// can have. It prints a violation if another process has the marker.
func contend(args []string) {
	path, marker := args[0], args[0]+".holder"
	fmt.Println("ready")
	for {
		f, err := Create(path)
		if errors.Is(err, interlock.ErrLocked) {
			time.Sleep(rand.N(2 * time.Millisecond))
			continue
		}
		if err == nil {
			err = holdMarked(path, marker)
		}
		if err == nil {
			fmt.Println("held")
			err = f.Close()
		}
		if err != nil {
			fmt.Println("violation:", err)
			return
		}
	}
}

// holdMarked makes the marker, looks at the PID file, and removes the marker.
func holdMarked(path, marker string) error {
	unmark, err := mark(marker)
	if err != nil {
		return err
	}
	if pid, running, err := Read(path); pid != os.Getpid() || !running || err != nil {
		return fmt.Errorf("read %d, %t, %v", pid, running, err)
	}
	time.Sleep(rand.N(time.Millisecond))
	return unmark()
}

func TestExactlyOneOfAHundred(t *testing.T) {
	path := newPath(t)
	length, processes := 4*time.Second, 100
	if !longtest.Enabled() {
		length, processes = time.Second, 30
	}
	if wine.Here() { // It starts processes slowly.
		processes = min(processes, 20)
	}
	deadline := time.Now().Add(length)
	var mu sync.Mutex
	held, kills := 0, 0
	var wg sync.WaitGroup
	for range processes {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !t.Failed() {
				p := proc.Start("contend", path)
				p.Expect("ready")
				n := watch(t, p, rand.N(length*3/4))
				p.Kill()
				mu.Lock()
				held += n
				kills++
				mu.Unlock()
				if time.Now().After(deadline) {
					return
				}
			}
		}()
	}
	wg.Wait()
	t.Logf("held %d times, %d kills", held, kills)
	if held < 20 {
		t.Error("hardly ever held")
	}
	mustCreate(t, path)
	wantRead(t, path, os.Getpid(), true)
}

// watch returns how often a process of contend held the file during its life.
func watch(t *testing.T, p *proc.Process, life time.Duration) (held int) {
	for end := time.Now().Add(life); time.Now().Before(end); {
		switch line, _ := p.Line(10 * time.Millisecond); line {
		case "held":
			held++
		case "":
		default:
			t.Error(line)
			return held
		}
	}
	return held
}
