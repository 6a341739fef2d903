package locktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

// Another process opens one lock. It then runs the calls that it receives, each
// on its own goroutine. A call is a line of input. Its answer is a line of
// output that begins with answerPrefix, because the implementation may print
// lines as well.
type (
	call struct {
		ID     int
		Name   string            // a method of the lock, or a key of remoteFuncs
		Args   []json.RawMessage // all arguments except a context
		Cancel bool              // cancel the context of the earlier call with this ID
	}
	answer struct {
		ID     int
		Value  json.RawMessage // the result of the call, other than its error
		Error  string
		Ended  bool   // the error is the one of the call's context
		Locked bool   // the error matches interlock.ErrLocked
		Closed bool   // the error matches fs.ErrClosed
		Panic  string // the value and the stack of a panic
	}
)

const answerPrefix = "locktest answers: "

// openID is the ID of the first answer, which says whether the lock was opened.
const openID = 0

// processName is the name of the function that package proc runs. It is also
// the first argument of the process: a program that uses package proc itself
// has functions that are not for Main to run.
const processName = "locktest"

// A process is another process, as the test sees it. A call of its methods runs
// there and behaves like a call in this process.
type process struct {
	*proc.Process

	killed bool

	mu     sync.Mutex
	last   int                   // ID of the last call
	calls  map[int]chan<- answer // calls without an answer, by ID
	exited bool                  // no more answers will come
}

var errExited = errors.New("the other process has exited")

// startProcess starts a process that opens a lock. When the test ends, Close
// must succeed in that process, unless the process was killed.
func startProcess(t *testing.T, kind, name string, size int64) (*process, error) {
	cmd := proc.Command(processName, processName, kind, name, strconv.FormatInt(size, 10))
	// With the race detector, a process sleeps for a second before it exits.
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	first := make(chan answer, 1)
	p := &process{
		Process: proc.StartCommand(cmd),
		calls:   map[int]chan<- answer{openID: first},
	}
	go p.listen()
	err := errors.New("another process does not open the lock")
	select {
	case a, ok := <-first:
		_, err = result(context.Background(), a, ok)
	case <-time.After(timeout):
	}
	if err != nil {
		p.Kill()
		return nil, err
	}
	t.Cleanup(func() {
		if t.Failed() {
			p.Kill()
		}
		if p.killed {
			return
		}
		closed := start(func() error { return p.ask(context.Background(), "Close") })
		select {
		case err := <-closed:
			if err != nil && !errors.Is(err, fs.ErrClosed) {
				t.Error("left in use:", err)
			}
		case <-time.After(timeout):
			t.Error("Close blocks in another process")
			p.Kill()
			return
		}
		exited := start(p.Close)
		select {
		case err := <-exited:
			if err != nil { // for example, the race detector found a race
				t.Error("another process:", err)
			}
		case <-time.After(timeout):
			t.Error("another process does not exit")
			p.Kill()
		}
	})
	return p, nil
}

// Kill kills the process and waits until it is gone.
func (p *process) Kill() {
	p.killed = true
	p.Process.Kill()
}

// listen passes each answer to the call that waits for it.
func (p *process) listen() {
	for {
		line, ok := p.Line(math.MaxInt64)
		var a answer
		data, marked := strings.CutPrefix(line, answerPrefix)
		if ok && (!marked || json.Unmarshal([]byte(data), &a) != nil) {
			continue // a line that the implementation printed
		}
		p.mu.Lock()
		if !ok {
			p.exited = true
			for _, c := range p.calls {
				close(c)
			}
			p.mu.Unlock()
			return
		}
		c, ok := p.calls[a.ID]
		delete(p.calls, a.ID)
		p.mu.Unlock()
		if ok {
			c <- a
		}
	}
}

// call runs a call in the other process, with the given arguments and a context
// that is canceled when ctx is done. It panics if the call panics.
func (p *process) call(ctx context.Context, name string, args ...any) (json.RawMessage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := call{Name: name}
	for _, arg := range args {
		if o, ok := arg.(interlock.Owner); ok {
			arg = fmt.Sprint(o)
		}
		data, err := json.Marshal(arg)
		if err != nil {
			panic(err)
		}
		c.Args = append(c.Args, data)
	}
	answered := make(chan answer, 1)
	if !p.begin(&c, answered) {
		return nil, errExited
	}
	select {
	case a, ok := <-answered:
		return result(ctx, a, ok)
	case <-ctx.Done():
		p.say(call{ID: c.ID, Cancel: true})
		a, ok := <-answered
		return result(ctx, a, ok)
	}
}

// begin gives the call an ID and sends it. It reports false if the process has
// exited.
func (p *process) begin(c *call, answered chan<- answer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exited {
		return false
	}
	p.last++
	c.ID = p.last
	p.calls[c.ID] = answered
	p.say(*c)
	return true
}

func (p *process) say(c call) {
	line, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	p.Say(string(line))
}

// result returns what the answer says. Without an answer, ok is false.
func result(ctx context.Context, a answer, ok bool) (json.RawMessage, error) {
	switch {
	case !ok:
		return nil, errExited
	case a.Panic != "":
		panic(a.Panic)
	case a.Ended:
		return nil, ctx.Err()
	case a.Locked:
		return nil, fmt.Errorf("in another process: %s (%w)", a.Error, interlock.ErrLocked)
	case a.Closed:
		return nil, fmt.Errorf("in another process: %s (%w)", a.Error, fs.ErrClosed)
	case a.Error != "":
		return nil, errors.New("in another process: " + a.Error)
	}
	return a.Value, nil
}

// callValue is like call and decodes the value.
func callValue[T any](ctx context.Context, p *process, name string, args ...any) (T, error) {
	var v T
	data, err := p.call(ctx, name, args...)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &v)
	}
	return v, err
}

// ask is like call, for a call that returns only an error.
func (p *process) ask(ctx context.Context, name string, args ...any) error {
	_, err := p.call(ctx, name, args...)
	return err
}

// must is like call, for a call that returns no error.
func (p *process) must(name string, args ...any) string {
	value, err := p.call(context.Background(), name, args...)
	if err != nil {
		panic(err)
	}
	return string(value)
}
