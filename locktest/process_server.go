package locktest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"runtime/debug"
	"strconv"
	"sync"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
)

// remoteFuncs are the functions that another process can call, in addition to
// the methods of the lock.
var remoteFuncs = map[string]any{
	"rLockerLock":          rLockerLock,
	"rLockerUnlock":        rLockerUnlock,
	"addRepeatedly":        addRepeatedly,
	"lockRandomly":         lockRandomly,
	"keepWriting":          keepWriting,
	"keepReading":          keepReading,
	"lockerLock":           lockerLock,
	"lockerUnlock":         lockerUnlock,
	"addNested":            addNested,
	"acquireRandomly":      acquireRandomly,
	"keepAcquiring":        keepAcquiring,
	"acquireAllRepeatedly": acquireAllRepeatedly,
}

// runProcess runs the calls of a test and exits, if a test started this
// process.
func runProcess(locks Locks) {
	if len(os.Args) > 1 && os.Args[1] == processName {
		proc.Run(map[string]proc.Func{processName: func(args []string) { serve(locks, args[1:]) }})
	}
}

// A server runs the calls of a test in another process.
type server struct {
	lock reflect.Value
	out  *os.File

	mu     sync.Mutex                 // guards writes to out, and owners
	owners map[string]interlock.Owner // by the names that the test uses
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
	s.answer(context.Background(), answer{ID: openID}, err)
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

// do runs a call and answers it.
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
	if remote, ok := remoteFuncs[c.Name]; ok {
		f = reflect.ValueOf(remote)
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

// arg returns an argument of type t. It is the context, the lock, or the next
// of the arguments that were sent.
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

// owner returns the owner in this process that stands for an owner of the test.
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
	// The implementation may have printed an unfinished line: begin a new one.
	fmt.Fprintf(s.out, "\n%s%s\n", answerPrefix, line)
}
