//go:build !interlock_bsd

package interlock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/interlock-go/interlock/internal/longtest"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/proclocks"
	"golang.org/x/sys/unix"
)

// The stress test runs goroutines of several processes that acquire and release
// random numbers of units, in rounds. After each round, all of them are quiet,
// and the test checks that every slot is in exactly one place.

func init() { children["stress"] = stressProcess }

// A round is what a process is told to do. It combines these words:
//
//	wait     wait until every call succeeds, and release all units at the end
//	cancel   cancel waits at random, and keep some units until the next round
//	replace  remove files at random
//	crowd    use up all file descriptors now and then
//	kill     none; the test kills one of the processes
type round string

func (r round) has(word string) bool { return strings.Contains(string(r), word) }

// stressProcess runs the rounds that it reads. After each it prints "quiet" and
// the number of units that it holds, or what is wrong. Its arguments are the
// name and the size of a semaphore, and a file with a counter of the units in
// use.
func stressProcess(args []string) {
	name := args[0]
	size, _ := strconv.ParseInt(args[1], 10, 64)
	inUse := sharedCounter(args[2])
	objects := []*FileSemaphore{Must(NewFileSemaphore(name, size)), Must(NewFileSemaphore(name, size))}
	users := make([]*stressUser, 5)
	for i := range users {
		users[i] = &stressUser{s: objects[min(i, 1)], inUse: inUse}
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		r := round(in.Text())
		// With the usual pauses, the head would find a unit although a
		// wake-up was lost. But a head at a replaced file is not woken,
		// and needs them.
		longestPause, pauseGrowth = time.Hour, 5000
		if r.has("replace") {
			longestPause, pauseGrowth = 100*time.Millisecond, 2
		}
		ctx, stop := context.WithCancel(context.Background())
		var disturbers, workers sync.WaitGroup
		if r.has("replace") {
			background(&disturbers, func() { removeFiles(ctx, name, size) })
		}
		if r.has("crowd") {
			background(&disturbers, func() { useUpDescriptors(ctx) })
		}
		for _, u := range users {
			background(&workers, func() { u.work(r) })
		}
		workers.Wait()
		stop()
		disturbers.Wait()
		held := int64(0)
		for i, s := range objects {
			units := int64(0)
			for _, u := range users {
				if u.s == s {
					units += u.units
				}
			}
			if err := becomesQuiet(s, units); err != nil {
				fmt.Printf("object %d: %v\n", i, err)
				return
			}
			held += units
		}
		fmt.Println("quiet", held)
	}
}

// background runs f on another goroutine that belongs to wg.
func background(wg *sync.WaitGroup, f func()) {
	wg.Add(1)
	go func() {
		defer wg.Done()
		f()
	}()
}

// sharedCounter returns the counter in a file of 8 bytes, which several
// processes share.
func sharedCounter(path string) *atomic.Int64 {
	f := Must(os.OpenFile(path, os.O_RDWR, 0))
	defer f.Close()
	memory := Must(unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
	return (*atomic.Int64)(unsafe.Pointer(&memory[0]))
}

// A stressUser is a goroutine that uses a semaphore.
type stressUser struct {
	s     *FileSemaphore
	inUse *atomic.Int64
	units int64 // that it holds
}

func (u *stressUser) work(r round) {
	for range 25 {
		u.release()
		n := int64(1)
		if rand.N(2) == 0 {
			n = rand.N(u.s.Size() + 1)
		}
		if !u.acquire(r, n) {
			continue
		}
		u.units = n
		// Units on removed files do not count, and a killed process
		// counts no more.
		if now := u.inUse.Add(n); now > u.s.Size() && !r.has("replace") && !r.has("kill") {
			fmt.Println(now, "units are in use")
		}
		if rand.N(2) == 0 {
			time.Sleep(rand.N(100 * time.Microsecond))
		}
	}
	if r.has("wait") || rand.N(2) == 0 {
		u.release()
	}
}

func (u *stressUser) release() {
	n := u.units
	u.units = 0
	u.inUse.Add(-n)
	u.s.Release(n)
}

// acquire reports whether it acquired n units.
func (u *stressUser) acquire(r round, n int64) bool {
	var err error
	switch {
	case rand.N(3) == 0:
		err = tryAcquire(u.s, n)
	case r.has("wait"):
		err = u.s.Acquire(context.Background(), n)
	default:
		// One context in three is done before the call.
		ctx, cancel := context.WithTimeout(context.Background(), rand.N(3*time.Millisecond)-time.Millisecond)
		err = u.s.Acquire(ctx, n)
		cancel()
	}
	switch {
	case err == nil:
		return true
	case err == ErrLocked, err == context.DeadlineExceeded:
	case errors.Is(err, unix.EMFILE) && r.has("crowd"):
	default:
		fmt.Println("acquire:", err)
	}
	return false
}

// tryAcquire is TryAcquire with errors instead of panics.
func tryAcquire(s *FileSemaphore, n int64) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = r.(error)
		}
	}()
	if !s.TryAcquire(n) {
		return ErrLocked
	}
	return nil
}

// removeFiles removes files of the semaphore at random until ctx is done.
func removeFiles(ctx context.Context, name string, size int64) {
	for ctx.Err() == nil {
		switch k := rand.N(size + 2); k {
		case size:
			os.Remove(name + ".gate.lock")
		case size + 1:
			os.Remove(name + ".queue.lock")
		default:
			os.Remove(fmt.Sprintf("%s.%02d.lock", name, k))
		}
		time.Sleep(rand.N(2 * time.Millisecond))
	}
}

// useUpDescriptors opens all files that the process may have open, again and
// again, until ctx is done. It does not lower the limit instead, because that
// affects descriptors that are open already.
func useUpDescriptors(ctx context.Context) {
	var limit unix.Rlimit
	Must(0, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = min(limit.Cur, 100)
	Must(0, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	for ctx.Err() == nil {
		var open []int
		for {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			open = append(open, fd)
		}
		time.Sleep(rand.N(time.Millisecond))
		for _, fd := range open {
			unix.Close(fd)
		}
		time.Sleep(rand.N(time.Millisecond))
	}
}

func TestSemaphoreStress(t *testing.T) {
	n := 6
	if longtest.Enabled() {
		n = 200
	}
	for name, rounds := range map[string][]round{
		"wait":    {"wait"},
		"cancel":  {"cancel", "cancel", "wait"},
		"replace": {"replace cancel", "replace cancel crowd"},
		"crowd":   {"crowd cancel", "crowd wait"},
		"kill":    {"kill wait", "kill cancel"},
	} {
		t.Run(name, func(t *testing.T) { stress(t, n, rounds) })
	}
}

// stress runs n rounds, the given ones in turn, in several processes.
func stress(t *testing.T, n int, rounds []round) {
	const size = 4
	name, counter := semName(t), lockPath(t)
	must(t, os.WriteFile(counter, make([]byte, 8), 0o600))
	s := newSemaphore(t, name, size)
	ps := make([]*proc.Process, 3)
	for i := range n {
		for k := range ps {
			if ps[k] == nil {
				ps[k] = startServer(t, "stress", name, strconv.Itoa(size), counter)
			}
		}
		r := rounds[i%len(rounds)]
		for _, p := range ps {
			p.Say(string(r))
		}
		if r.has("kill") {
			time.Sleep(rand.N(10 * time.Millisecond))
			k := rand.N(len(ps))
			ps[k].Kill()
			ps[k] = nil
		}
		held := 0
		for _, p := range ps {
			if p == nil {
				continue
			}
			line, _ := p.Line(patience)
			number, ok := strings.CutPrefix(line, "quiet ")
			if !ok {
				t.Fatalf("round %d (%s): %q", i, r, line)
			}
			units, err := strconv.Atoi(number)
			must(t, err)
			held += units
		}
		if !r.has("replace") {
			wantLocked(t, s, held)
		}
	}
	for _, p := range ps {
		if p != nil {
			must(t, p.Close())
		}
	}
	must(t, finish(t, acquiring(t.Context(), s, size)))
	s.Release(size)
}

// wantLocked waits until this number of slot files is locked, and nothing else.
func wantLocked(t *testing.T, s *FileSemaphore, want int) {
	t.Helper()
	begin := time.Now()
	for {
		slots, others := lockedFiles(t, s)
		if slots == want && len(others) == 0 {
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("%d slot files are locked, want %d; other locks: %+v", slots, want, others)
		}
		time.Sleep(time.Millisecond)
	}
}

// lockedFiles returns how many slot files of s are locked, and which locks
// there are at its other files, except the use locks of the gate.
func lockedFiles(t *testing.T, s *FileSemaphore) (slots int, others []proclocks.Lock) {
	t.Helper()
	for k := range s.Size() {
		slots += len(kernelLocks(t, s.slotPath(k)))
	}
	for _, l := range kernelLocks(t, s.abs+".gate.lock") {
		if l.Start != farByte+1 || l.End != l.Start {
			others = append(others, l)
		}
	}
	return slots, append(others, kernelLocks(t, s.abs+".queue.lock")...)
}
