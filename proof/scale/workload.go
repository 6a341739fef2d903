//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/interlock-go/interlock"
	"golang.org/x/sys/unix"
)

// A workload is a number of members that contend for locks, or for the units of
// one semaphore. Each member is a goroutine.
type workload struct {
	kind       string
	processes  int
	goroutines int   // of each process
	locks      int   // or 0 for a semaphore
	units      int64 // of the semaphore
	bare       bool  // use only flock(2), for comparison
}

func (c workload) members() int { return c.processes * c.goroutines }

// A lock is a lock, or one unit of a semaphore.
type lock interface {
	lock()
	unlock()
}

type mutex struct{ *interlock.FileRWMutex }

func (m mutex) lock()   { m.Lock() }
func (m mutex) unlock() { m.Unlock() }

type unit struct{ s *interlock.FileSemaphore }

func (u unit) lock() {
	if err := u.s.Acquire(context.Background(), 1); err != nil {
		panic(err)
	}
}
func (u unit) unlock() { u.s.Release(1) }

// A bareFile is locked by flock(2) alone.
type bareFile struct{ *os.File }

func (f bareFile) lock()   { f.flock(unix.LOCK_EX) }
func (f bareFile) unlock() { f.flock(unix.LOCK_UN) }

func (f bareFile) flock(how int) {
	for {
		if err := unix.Flock(int(f.Fd()), how); err == nil {
			return
		} else if err != unix.EINTR {
			panic(err)
		}
	}
}

// open opens the locks of the workload in dir. A semaphore counts as one lock.
func (c workload) open(dir string) []lock {
	if c.bare {
		return []lock{bareFile{interlock.Must(os.OpenFile(filepath.Join(dir, "bare"), os.O_RDWR|os.O_CREATE, 0o600))}}
	}
	if c.units > 0 {
		return []lock{unit{interlock.Must(interlock.NewFileSemaphore(filepath.Join(dir, "sem"), c.units))}}
	}
	locks := make([]lock, c.locks)
	for i := range locks {
		locks[i] = mutex{interlock.Must(interlock.NewFileRWMutex(filepath.Join(dir, fmt.Sprint("lock.", i))))}
	}
	return locks
}

// A member acquires and releases one lock, in turns.
type member struct {
	lock    lock
	counter int64 // offset of the counter that the lock guards, or -1
	turns   atomic.Int64
	before  int64 // turns before the count began
}

// turn acquires the lock, adds one to the counter and releases the lock. The
// counter is wrong in the end if two members ever held the lock at once.
func (m *member) turn(counters *os.File) {
	m.lock.lock()
	defer m.lock.unlock()
	m.turns.Add(1)
	if m.counter < 0 {
		return
	}
	var n [8]byte
	counters.ReadAt(n[:], m.counter)
	binary.LittleEndian.PutUint64(n[:], binary.LittleEndian.Uint64(n[:])+1)
	if _, err := counters.WriteAt(n[:], m.counter); err != nil {
		panic(err)
	}
}

// contend is the function of a process of a workload. It runs these commands,
// one per line of input:
//
//	race   let all members have turns without a pause
//	count  count turns from now on
//	stop   end the race and print the turns
//	wait   let each member have one turn and print the turns
func contend(args []string) {
	dir := args[0]
	var c workload
	for i, to := range []*int{&c.goroutines, &c.locks} {
		*to, _ = strconv.Atoi(args[1+i])
	}
	c.units, _ = strconv.ParseInt(args[3], 10, 64)
	c.bare = args[4] == "true"
	locks := c.open(dir)
	counters := interlock.Must(os.OpenFile(filepath.Join(dir, "counters"), os.O_RDWR|os.O_CREATE, 0o600))
	members := make([]member, c.goroutines)
	for i := range members {
		members[i].lock, members[i].counter = locks[i%len(locks)], int64(i%len(locks))*8
		if c.units > 0 {
			members[i].counter = -1
		}
	}
	var racing atomic.Bool
	var all sync.WaitGroup
	fmt.Println("ready")
	for {
		var line string
		if _, err := fmt.Scanln(&line); err != nil {
			return
		}
		switch line {
		case "race":
			racing.Store(true)
			for i := range members {
				all.Add(1)
				go func() {
					defer all.Done()
					for racing.Load() {
						members[i].turn(counters)
						// Without this, the first few members have all the
						// turns, each for 10 ms, until the others have started.
						runtime.Gosched()
					}
				}()
			}
			continue
		case "count":
			for i := range members {
				members[i].before = members[i].turns.Load()
			}
			continue
		case "stop":
			racing.Store(false)
		case "wait":
			for i := range members {
				all.Add(1)
				go func() {
					defer all.Done()
					members[i].turn(counters)
				}()
			}
			fmt.Println("waiting")
		}
		all.Wait()
		var least, most, sum, total int64
		for i := range members {
			m := &members[i]
			n := m.turns.Load() - m.before
			if i == 0 || n < least {
				least = n
			}
			most, sum, total = max(most, n), sum+n, total+m.turns.Load()
		}
		fmt.Println("turns", least, most, sum, total)
	}
}
