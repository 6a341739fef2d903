package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/lockedfile"
	"github.com/interlock-go/interlock/pidfile"
)

type visits struct{ Total int }

func (t *tour) lockedFiles() {
	t.title("Four processes change a JSON file; two of them are killed, again and again")
	path := t.path("visits.json")
	counted, kills := 0, 0
	finished := func(p *proc.Process) {
		for {
			line, ok := p.Line(10 * time.Second)
			if !ok || line == "done" {
				return
			}
			counted++
		}
	}
	for range 5 {
		var ps []*proc.Process
		for range 4 {
			ps = append(ps, proc.Start("visit", path))
		}
		for _, p := range ps[:2] {
			p.Expect("counted")
			counted++
			p.Signal(os.Kill) // what it has said is still to be counted
			kills++
		}
		for _, p := range ps {
			finished(p)
			p.Close()
		}
	}
	var v visits
	data, err := lockedfile.Read(context.Background(), path)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	t.saw(err == nil, "the file is whole: %v", err)
	t.saw(v.Total >= counted && v.Total <= counted+kills, "%d visits were counted before %d kills, and the file says %d", counted, kills, v.Total)
	err = lockedfile.TransformJSON(context.Background(), path, 0o644, func(v *visits) error {
		v.Total = -1
		return errors.New("changed my mind")
	})
	again, _ := lockedfile.Read(context.Background(), path)
	t.saw(string(again) == string(data), "a change that fails changes nothing: %v", err)
}

// visit counts its visits in a JSON file.
func visit(args []string) {
	for range 50 {
		interlock.Must(0, lockedfile.TransformJSON(context.Background(), args[0], 0o644, func(v *visits) error {
			v.Total++
			return nil
		}))
		fmt.Println("counted")
	}
	fmt.Println("done")
}

func (t *tour) commonLog() {
	t.title("Three processes append to one log, and a fourth has it open")
	path := t.path("common.log")
	ctx := context.Background()
	err := lockedfile.Write(ctx, path, []byte("begin\n"), 0o644)
	var ps []*proc.Process
	for range 3 {
		ps = append(ps, proc.Start("log", path))
	}
	for _, p := range ps {
		p.Close()
	}
	data, readErr := lockedfile.Read(ctx, path)
	t.saw(err == nil && readErr == nil && string(data) == "begin\n"+strings.Repeat("a line of one process\n", 60), "60 lines are there, all whole, after the first: %v", readErr)
	editor := proc.Start("edit", path)
	editor.Expect("open")
	err = lockedfile.TryWrite(path, []byte("nothing but this\n"), 0o644)
	t.saw(errors.Is(err, interlock.ErrLocked), "to write without waiting is refused meanwhile: %s", strings.ReplaceAll(fmt.Sprint(err), t.dir, "…"))
	editor.Close()
	data, _ = lockedfile.Read(ctx, path)
	err = lockedfile.TryWrite(path, []byte("nothing but this\n"), 0o644)
	t.saw(err == nil && strings.HasPrefix(string(data), "BEGIN"), "and done when that has closed it: %v", err)
}

// appendToLog adds lines to a file.
func appendToLog(args []string) {
	for range 20 {
		interlock.Must(0, lockedfile.Append(context.Background(), args[0], []byte("a line of one process\n"), 0o644))
	}
}

// edit changes a file in its place, and keeps it locked until its input ends.
func edit(args []string) {
	f := interlock.Must(lockedfile.OpenFile(context.Background(), args[0], os.O_RDWR, 0))
	fmt.Println("open")
	bufio.NewReader(os.Stdin).ReadString('\n')
	interlock.Must(f.WriteAt([]byte("BEGIN"), 0))
	interlock.Must(0, f.Close())
}

func (t *tour) onlyOne() {
	t.title("A program that runs only once at a time")
	path := t.path("app.pid")
	first := proc.Start("serve", path)
	first.Expect("runs")
	second := proc.Start("serve", path)
	said := second.Expect("refused")
	second.Close()
	t.saw(strings.Contains(said, strconv.Itoa(first.Pid())), "the second one says: %s", strings.ReplaceAll(said, t.dir, "…"))
	pid, running, err := pidfile.Read(path)
	t.saw(pid == first.Pid() && running && err == nil, "others can read the PID: %d, runs: %t", pid, running)
	first.Kill()
	third := proc.Start("serve", path)
	third.Expect("runs")
	t.saw(true, "when it was killed, the next one takes over")
	third.Close()
	_, err = os.Stat(path)
	t.saw(errors.Is(err, fs.ErrNotExist), "when that ends, it removes the file")
}

// serve runs, unless it does so already, until its input ends.
func serve(args []string) {
	file, err := pidfile.Create(args[0])
	if err != nil {
		fmt.Println("refused", err)
		return
	}
	defer file.Close()
	fmt.Println("runs")
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func (t *tour) whoHoldsIt() {
	t.title("Who holds the lock, and who waits for it")
	err := interlock.Probe(t.dir)
	t.saw(err == nil, "locks in this directory do what they should: %v", err)
	path := t.path("held.lock")
	p := proc.Start("hold", path)
	defer p.Kill()
	p.Expect("held")
	var told []string
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithTrace(&interlock.Trace{
		WaitStart: func(interlock.TraceInfo) {
			holders, err := interlock.Holders(path)
			for _, h := range holders {
				told = append(told, fmt.Sprintf("waiting for %d, %s", h.PID, h.Command))
			}
			if errors.Is(err, errors.ErrUnsupported) {
				told = append(told, fmt.Sprintf("waiting for %d, though this system does not tell", p.Pid()))
			}
		},
		Abandoned: func(_ interlock.TraceInfo, waited time.Duration, err error) {
			told = append(told, fmt.Sprintf("gave up after %v: %v", waited.Round(time.Millisecond), err))
		},
		Acquired: func(_ interlock.TraceInfo, waited time.Duration) {
			told = append(told, fmt.Sprintf("acquired after %v", waited))
		},
		Released: func(_ interlock.TraceInfo, held time.Duration) {
			told = append(told, fmt.Sprintf("held for %v", held.Round(time.Millisecond)))
		},
	})))
	defer mu.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	mu.LockContext(ctx)
	t.saw(len(told) == 2 && strings.Contains(told[0], strconv.Itoa(p.Pid())), "a trace tells: %s", strings.Join(told, "; "))
	p.Kill()
	told = nil
	mu.Lock()
	time.Sleep(5 * time.Millisecond)
	mu.Unlock()
	t.saw(len(told) == 2, "and when that process is gone: %s", strings.Join(told, "; "))
}
