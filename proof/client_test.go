//go:build linux

package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/interlock-go/interlock"
)

// contend is the function of a worker. Its clients use the lock dir/lock at
// random until the worker reads a line. The arguments are dir, the number of
// the process, an implementation, a capacity, and the number of clients.
func contend(args []string) {
	dir, impl := args[0], implementations[args[2]]
	process, capacity, clients := number(args[1]), number(args[3]), number(args[4])
	j := openJournal(dir, int(process))
	value, err := os.OpenFile(filepath.Join(dir, "value"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for id := range int(clients) {
		cl := &client{id: id, journal: j, value: value, capacity: capacity, implementation: impl}
		all.Add(1)
		go func() {
			defer all.Done()
			cl.run(filepath.Join(dir, "lock"), stop)
		}()
	}
	fmt.Println("ready")
	var line string
	fmt.Scanln(&line) // "stop", or the end of the input
	close(stop)
	all.Wait()
	fmt.Println("stopped")
	fmt.Scanln(&line)
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// A client is a goroutine that makes one attempt after the other.
type client struct {
	id             int
	journal        *journal
	value          *os.File // the lock guards its contents
	capacity       int64
	implementation implementation
	turns          uint32
}

// run makes attempts until stop is closed.
func (c *client) run(path string, stop <-chan struct{}) {
	var l lock
	for {
		select {
		case <-stop:
			return
		default:
		}
		if l == nil {
			c.journal.call(c.id, openLock, 0, 0)
			opened, err := c.implementation.open(path, c.capacity)
			if err != nil {
				c.journal.end(c.id, err.Error())
			} else {
				c.journal.end(c.id, done)
				l = opened
			}
		}
		if l != nil {
			c.turn(l)
		}
		if rand.IntN(4) > 0 {
			time.Sleep(rand.N(time.Millisecond))
		}
	}
}

// turn makes one attempt and logs it.
func (c *client) turn(l lock) {
	c.turns++
	weight := c.implementation.weights[rand.IntN(len(c.implementation.weights))]
	if weight == 0 || weight > c.capacity {
		weight = c.capacity
	}
	var write uint64
	if weight == c.capacity {
		write = uint64(c.journal.process+1)<<40 | uint64(c.id)<<32 | uint64(c.turns)
	}
	ctx := context.Background()
	var err error
	switch how := [...]string{waitForever, waitForever, waitForever, waitUntilDone, tryOnce}[rand.IntN(5)]; how {
	case waitForever:
		c.journal.call(c.id, how, weight, write)
		err = l.acquire(ctx, weight)
	case waitUntilDone:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(5*time.Millisecond))
		defer cancel()
		c.journal.call(c.id, how, weight, write)
		err = l.acquire(ctx, weight)
	case tryOnce:
		c.journal.call(c.id, how, weight, write)
		err = l.try(weight)
	}
	switch {
	case errors.Is(err, interlock.ErrLocked):
		c.journal.end(c.id, locked)
		return
	case err != nil && err == ctx.Err():
		c.journal.end(c.id, ended)
		return
	case err != nil:
		c.journal.end(c.id, err.Error())
		return
	}
	c.journal.acquired(c.id)
	saw := c.read()
	if rand.IntN(3) > 0 {
		time.Sleep(rand.N(500 * time.Microsecond))
	}
	if write != 0 {
		c.write(write)
	}
	c.journal.release(c.id, saw)
	l.release(weight)
	c.journal.end(c.id, done)
}

// read returns the guarded value, which is 0 at first.
func (c *client) read() uint64 {
	var buf [20]byte
	n, _ := c.value.ReadAt(buf[:], 0)
	if n == 0 {
		return 0
	}
	v, err := strconv.ParseUint(string(buf[:n]), 10, 64)
	if err != nil {
		panic(err)
	}
	return v
}

func (c *client) write(v uint64) {
	if _, err := c.value.WriteAt(fmt.Appendf(nil, "%020d", v), 0); err != nil {
		panic(err)
	}
}
