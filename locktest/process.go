package locktest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

// Another process opens one lock, and then makes the calls that it is told to, each on a goroutine of
// its own. A call is a line in, and its answer a line out that begins with a mark, since the implementation may print, too.
type (
	call struct {
		ID     int
		Name   string            // of a method of the lock, or of one of the jobs
		Args   []json.RawMessage // without its context
		Cancel bool              // ends the context of the call with this ID, made before
	}
	answer struct {
		ID     int
		Value  json.RawMessage // what the call returned besides its error
		Error  string
		Ended  bool   // the error is that of the call's context
		Locked bool   // it matches interlock.ErrLocked
		Closed bool   // it matches fs.ErrClosed
		Panic  string // with the stack
	}
)

const mark = "locktest answers: "

// jobs are what can be called besides the methods of the lock.
var jobs = map[string]any{
	"rLockerLock":   rLockerLock,
	"rLockerUnlock": rLockerUnlock,
	"addOften":      addOften,
	"storm":         storm,
	"keepWriting":   keepWriting,
	"keepReading":   keepReading,
	"lockerLock":    lockerLock,
	"lockerUnlock":  lockerUnlock,
	"addNested":     addNested,
	"unitStorm":     unitStorm,
	"keepAcquiring": keepAcquiring,
	"acquireAll":    acquireAll,
}

// opened is the ID in the first answer: whether there is a lock at all.
const opened = 0

// processName is also the process's first argument: there may be functions of others, for whom to call proc.Run.
const processName = "locktest"

func runProcess(locks Locks) {
	if len(os.Args) > 1 && os.Args[1] == processName {
		proc.Run(map[string]proc.Func{processName: func(args []string) { serve(locks, args[1:]) }})
	}
}

// A server is the inner side of another process.
type server struct {
	lock reflect.Value
	out  *os.File

	mu     sync.Mutex // guards out and what follows
	owners map[string]interlock.Owner
}

func serve(locks Locks, args []string) {
	s := &server{out: os.Stdout, owners: make(map[string]interlock.Owner)}
	kind, name := args[0], args[1]
	size, _ := strconv.ParseInt(args[2], 10, 64)
	var lock any
	var err error
	switch kind {
	case "RWMutex":
		lock, err = locks.RWMutex(name)
	case "RMutex":
		lock, err = locks.RMutex(name)
	case "Semaphore":
		lock, err = locks.Semaphore(name, size)
	}
	s.lock = reflect.ValueOf(lock)
	s.answer(context.Background(), answer{ID: opened}, err)
	if err != nil {
		return
	}
	cancels := make(map[int]context.CancelFunc)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var c call
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			panic(err)
		}
		if c.Cancel {
			cancels[c.ID]()
			continue
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancels[c.ID] = cancel
		go s.do(ctx, c)
	}
}

// do makes a call and answers it.
func (s *server) do(ctx context.Context, c call) {
	a := answer{ID: c.ID}
	var err error
	defer func() {
		if p := recover(); p != nil {
			a.Panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
		s.answer(ctx, a, err)
	}()
	f := s.lock.MethodByName(c.Name)
	if job, ok := jobs[c.Name]; ok {
		f = reflect.ValueOf(job)
	}
	var args []reflect.Value
	for i := range f.Type().NumIn() {
		args = append(args, s.arg(ctx, f.Type().In(i), &c.Args))
	}
	for _, result := range f.Call(args) {
		if result.Type() == reflect.TypeFor[error]() {
			err, _ = result.Interface().(error)
		} else {
			a.Value, _ = json.Marshal(result.Interface())
		}
	}
}

// arg is an argument of a call. That which is not here anyway is the next of what came with the call.
func (s *server) arg(ctx context.Context, t reflect.Type, sent *[]json.RawMessage) reflect.Value {
	switch {
	case t == reflect.TypeFor[context.Context]():
		return reflect.ValueOf(ctx)
	case t.Kind() == reflect.Interface:
		return s.lock
	}
	v := reflect.New(t)
	var name string
	var err error
	if t == reflect.TypeFor[interlock.Owner]() {
		err = json.Unmarshal((*sent)[0], &name)
		v.Elem().Set(reflect.ValueOf(s.owner(name)))
	} else {
		err = json.Unmarshal((*sent)[0], v.Interface())
	}
	if err != nil {
		panic(err)
	}
	*sent = (*sent)[1:]
	return v.Elem()
}

// owner is the owner of this process that stands for one of the tests' process.
func (s *server) owner(name string) interlock.Owner {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.owners[name]
	if !ok {
		o = interlock.NewOwner()
		s.owners[name] = o
	}
	return o
}

func (s *server) answer(ctx context.Context, a answer, err error) {
	if err != nil {
		a.Error, a.Ended = err.Error(), err == ctx.Err()
		a.Locked, a.Closed = errors.Is(err, interlock.ErrLocked), errors.Is(err, fs.ErrClosed)
	}
	line, err := json.Marshal(a)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "\n%s%s\n", mark, line) // on a line of its own, wherever others left off
}

// A process is the outer side of another process: its calls are made there, and behave as if here.
type process struct {
	*proc.Process

	killed bool

	mu    sync.Mutex
	last  int                   // the ID of the last call
	calls map[int]chan<- answer // what is still to be answered
	ended bool                  // and answers nothing any more
}

var errEnded = errors.New("the other process has ended")

// startProcess starts a process that opens a lock. It must leave it as Close wants it by the end of the
// test, unless it is killed.
func startProcess(t *testing.T, kind, name string, size int64) (*process, error) {
	cmd := proc.Command(processName, processName, kind, name, strconv.FormatInt(size, 10))
	cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE")) // or each sleeps for a second, for others to end first
	first := make(chan answer, 1)
	p := &process{
		Process: proc.StartCommand(cmd),
		calls:   map[int]chan<- answer{opened: first},
	}
	go p.listen()
	err := errors.New("another process does not come to open the lock")
	select {
	case a, ok := <-first:
		_, err = result(context.Background(), a, ok)
	case <-time.After(patience):
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
		inUse := start(func() error { return p.ask(context.Background(), "Close") })
		select {
		case err := <-inUse:
			if err != nil && !errors.Is(err, fs.ErrClosed) {
				t.Error("left in use: ", err)
			}
		case <-time.After(patience):
			t.Error("in another process, Close waits")
			p.Kill()
			return
		}
		ended := start(p.Close)
		select {
		case err := <-ended:
			if err != nil { // such as of the race detector
				t.Error("another process: ", err)
			}
		case <-time.After(patience):
			t.Error("another process does not end")
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

// listen hands the answers to those who wait for them.
func (p *process) listen() {
	for {
		line, ok := p.Line(math.MaxInt64)
		var a answer
		data, marked := strings.CutPrefix(line, mark)
		if ok && (!marked || json.Unmarshal([]byte(data), &a) != nil) {
			continue // what the implementation prints
		}
		p.mu.Lock()
		if !ok {
			p.ended = true
			for _, c := range p.calls {
				close(c)
			}
			p.mu.Unlock()
			return
		}
		c, asked := p.calls[a.ID]
		delete(p.calls, a.ID)
		p.mu.Unlock()
		if asked {
			c <- a
		}
	}
}

// call makes a call, with the given arguments and a context that ends when ctx does. It panics if
// the call does.
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
		return nil, errEnded
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

// begin tells the process to make the call, which gets an ID, unless it has ended.
func (p *process) begin(c *call, answered chan<- answer) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
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

// result is what an answer says, if there was one.
func result(ctx context.Context, a answer, ok bool) (json.RawMessage, error) {
	switch {
	case !ok:
		return nil, errEnded
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

// callFor is call for a value.
func callFor[T any](ctx context.Context, p *process, name string, args ...any) (T, error) {
	var v T
	data, err := p.call(ctx, name, args...)
	if err == nil && len(data) > 0 {
		err = json.Unmarshal(data, &v)
	}
	return v, err
}

// ask is call without a value.
func (p *process) ask(ctx context.Context, name string, args ...any) error {
	_, err := p.call(ctx, name, args...)
	return err
}

// must is call without an error.
func (p *process) must(name string, args ...any) string {
	value, err := p.call(context.Background(), name, args...)
	if err != nil {
		panic(err)
	}
	return string(value)
}
