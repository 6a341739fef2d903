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
	t.title("Four processes change a JSON file, and two of them are killed, five times")
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
			p.Signal(os.Kill) // finished counts the lines that it has printed
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
	t.reportError(err, true, "the file is intact")
	t.report(v.Total >= counted && v.Total <= counted+kills, "the processes reported %d visits in spite of %d kills, and the file has %d", counted, kills, v.Total)
	err = lockedfile.TransformJSON(context.Background(), path, 0o644, func(v *visits) error {
		v.Total = -1
		return errors.New("changed my mind")
	})
	again, _ := lockedfile.Read(context.Background(), path)
	t.report(err != nil && string(again) == string(data), "a change that fails (%v) leaves the file alone", err)
}

// visit increments a number in a JSON file.
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
	t.title("Three processes append to one log, and then a fourth has it open")
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
	t.reportError(errors.Join(err, readErr), string(data) == "begin\n"+strings.Repeat("a line of one process\n", 60), "all 60 lines are complete")
	editor := proc.Start("edit", path)
	editor.Expect("open")
	err = lockedfile.TryWrite(path, []byte("nothing but this\n"), 0o644)
	t.report(errors.Is(err, interlock.ErrLocked), "while the file is open, TryWrite returned at once: %v", t.short(err))
	editor.Close()
	data, _ = lockedfile.Read(ctx, path)
	err = lockedfile.TryWrite(path, []byte("nothing but this\n"), 0o644)
	t.reportError(err, strings.HasPrefix(string(data), "BEGIN"), "after that, TryWrite succeeds")
}

// appendToLog appends lines to a file.
func appendToLog(args []string) {
	for range 20 {
		interlock.Must(0, lockedfile.Append(context.Background(), args[0], []byte("a line of one process\n"), 0o644))
	}
}

// edit changes a file in place, and keeps it locked until its input ends.
func edit(args []string) {
	f := interlock.Must(lockedfile.OpenFile(context.Background(), args[0], os.O_RDWR, 0))
	fmt.Println("open")
	bufio.NewReader(os.Stdin).ReadString('\n')
	interlock.Must(f.WriteAt([]byte("BEGIN"), 0))
	interlock.Must(0, f.Close())
}

func (t *tour) onlyOne() {
	t.title("Only one instance of a program runs at a time")
	path := t.path("app.pid")
	first := proc.Start("serve", path)
	first.Expect("runs")
	second := proc.Start("serve", path)
	said := second.Expect("refused")
	second.Close()
	t.report(strings.Contains(said, strconv.Itoa(first.Pid())), "the second instance printed: %s", t.shorten(said))
	pid, running, err := pidfile.Read(path)
	t.reportError(err, pid == first.Pid() && running, "another program reads PID %d, running %t", pid, running)
	first.Kill()
	third := proc.Start("serve", path)
	third.Expect("runs")
	t.report(true, "after the first was killed, a third instance took over")
	third.Close()
	_, err = os.Stat(path)
	t.report(errors.Is(err, fs.ErrNotExist), "the file is gone when the program ends")
}

// serve runs until its input ends, unless another instance is running.
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
	t.title("Diagnostics: a probe of the disk, the holder of a lock, and a trace")
	err := interlock.Probe(t.dir)
	t.reportError(err, true, "locks work in this directory")
	path := t.path("held.lock")
	p := proc.Start("hold", path)
	defer p.Kill()
	p.Expect("held")
	var events []string
	mu := interlock.Must(interlock.NewFileRWMutex(path, interlock.WithTrace(&interlock.Trace{
		WaitStart: func(interlock.TraceInfo) {
			holders, err := interlock.Holders(path)
			for _, h := range holders {
				events = append(events, fmt.Sprintf("waiting for process %d (%s)", h.PID, h.Command))
			}
			if errors.Is(err, errors.ErrUnsupported) {
				events = append(events, fmt.Sprintf("waiting for process %d (not reported by this system)", p.Pid()))
			}
		},
		Abandoned: func(_ interlock.TraceInfo, waited time.Duration, err error) {
			events = append(events, fmt.Sprintf("gave up after %v: %v", waited.Round(time.Millisecond), t.short(err)))
		},
		Acquired: func(_ interlock.TraceInfo, waited time.Duration) {
			events = append(events, fmt.Sprintf("acquired after %v", waited))
		},
		Released: func(_ interlock.TraceInfo, held time.Duration) {
			events = append(events, fmt.Sprintf("held for %v", held.Round(time.Millisecond)))
		},
	})))
	defer mu.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	mu.LockContext(ctx)
	t.report(len(events) == 2 && strings.Contains(events[0], strconv.Itoa(p.Pid())), "a trace of a wait: %s", strings.Join(events, "; "))
	p.Kill()
	events = nil
	mu.Lock()
	time.Sleep(5 * time.Millisecond)
	mu.Unlock()
	t.report(len(events) == 2, "a trace after the holder was killed: %s", strings.Join(events, "; "))
}
