package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

const processCount, increments = 4, 250

func (t *tour) counting() {
	t.title("Four processes increment a number in one file")
	const want = processCount * increments
	sum := func(how string) int {
		counter := t.path("counter-" + how)
		var ps []*proc.Process
		for range processCount {
			ps = append(ps, proc.Start("count", how, counter, t.path("counter.lock")))
		}
		for _, p := range ps { // all start together, so that they contend
			p.Expect("ready")
		}
		for _, p := range ps {
			p.Say("go")
		}
		for _, p := range ps {
			p.Expect("done")
			p.Close()
		}
		return number(counter)
	}
	locked, unlocked := sum("locked"), sum("unlocked")
	t.report(locked == want, "with the lock: %d of %d increments took effect", locked, want)
	t.report(unlocked < want, "without the lock: %d of %d, so %d were lost", unlocked, want, want-unlocked)
}

// count increments the number in a file.
func count(args []string) {
	how, counter := args[0], args[1]
	mu := interlock.Must(interlock.NewFileRWMutex(args[2]))
	lock, unlock := mu.Lock, mu.Unlock
	if how == "unlocked" {
		lock, unlock = func() {}, func() {}
	}
	file := interlock.Must(os.OpenFile(counter, os.O_RDWR|os.O_CREATE, 0o600))
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("ready")
	in.Scan()
	for range increments {
		lock()
		n := number(counter)
		interlock.Must(file.WriteAt(fmt.Appendf(nil, "%10d", n+1), 0))
		unlock()
	}
	fmt.Println("done")
}

// number returns the number in the file at path, or 0 if there is none.
func number(path string) int {
	data, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return n
}

func (t *tour) readersAndAWriter() {
	t.title("Three processes read without a pause, and one process writes")
	path := t.path("rw.lock")
	mu := interlock.Must(interlock.NewFileRWMutex(path))
	defer mu.Close()
	var ps []*proc.Process
	for range 3 {
		ps = append(ps, proc.Start("read", path))
	}
	for _, p := range ps {
		p.Expect("reading")
	}
	together := mu.TryRLock()
	for i := 0; !together && i < 1000; i++ {
		time.Sleep(time.Millisecond)
		together = mu.TryRLock()
	}
	t.report(together, "another reader can join")
	if together {
		t.report(!mu.TryLock(), "a writer cannot")
		mu.RUnlock()
	}
	const turns = 20
	got := 0
	var longest time.Duration
	for range turns {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if mu.LockContext(ctx) == nil {
			got++
			mu.Unlock()
		}
		cancel()
		longest = max(longest, time.Since(begin))
	}
	reads := 0
	for _, p := range ps {
		n, _ := strconv.Atoi(p.Ask("stop", "reads"))
		reads += n
		p.Close()
	}
	t.report(got == turns, "a writer that waits got %d of %d turns; its longest wait was %v", got, turns, longest.Round(time.Millisecond))
	t.report(reads > 0, "the readers had the lock %d times", reads)
}

// read runs four goroutines whose read locks overlap, so that the lock is
// almost never free.
func read(args []string) {
	mu := interlock.Must(interlock.NewFileRWMutex(args[0]))
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var reads [4]int
	for i := range reads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for ctx.Err() == nil {
				mu.RLock()
				time.Sleep(2 * time.Millisecond)
				reads[i]++
				mu.RUnlock()
			}
		}()
		time.Sleep(time.Millisecond / 2)
	}
	fmt.Println("reading")
	bufio.NewReader(os.Stdin).ReadString('\n')
	stop()
	wg.Wait()
	fmt.Println("reads", reads[0]+reads[1]+reads[2]+reads[3])
}

func (t *tour) deadline() {
	t.title("A wait ends at the deadline of its context")
	path := t.path("deadline.lock")
	p := proc.Start("hold", path)
	defer p.Kill()
	p.Expect("held")
	mu := interlock.Must(interlock.NewFileRWMutex(path))
	defer mu.Close()
	const timeout = 50 * time.Millisecond
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := mu.LockContext(ctx)
	took := time.Since(begin)
	t.report(errors.Is(err, context.DeadlineExceeded) && took >= timeout, "LockContext with a timeout of %v returned after %v: %v", timeout, took.Round(100*time.Microsecond), t.short(err))
	err = mu.TryLockContext(context.Background())
	t.report(errors.Is(err, interlock.ErrLocked), "TryLockContext returned at once: %v", t.short(err))
}

// hold acquires the lock and keeps it until its input ends.
func hold(args []string) {
	mu := interlock.Must(interlock.NewFileRWMutex(args[0]))
	mu.Lock()
	fmt.Println("held")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func (t *tour) killedHolder() {
	t.title("A process is killed while it holds the lock")
	path := t.path("killed.lock")
	p := proc.Start("hold", path)
	p.Expect("held")
	mu := interlock.Must(interlock.NewFileRWMutex(path))
	defer mu.Close()
	locked := make(chan time.Time, 1)
	go func() {
		mu.Lock()
		locked <- time.Now()
		mu.Unlock()
	}()
	select {
	case <-locked:
		t.report(false, "the waiter had the lock while the other process held it")
		return
	case <-time.After(20 * time.Millisecond):
	}
	begin := time.Now()
	p.Kill()
	select {
	case at := <-locked:
		t.report(true, "the waiter had the lock %v after the kill", at.Sub(begin).Round(10*time.Microsecond))
	case <-time.After(10 * time.Second):
		t.report(false, "the waiter still waits")
	}
}
