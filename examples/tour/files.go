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
	})))
	defer mu.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	mu.LockContext(ctx)
	t.saw(len(told) == 2 && strings.Contains(told[0], strconv.Itoa(p.Pid())), "a trace tells: %s", strings.Join(told, "; "))
}
