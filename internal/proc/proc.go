// Package proc runs functions of a program in processes of their own: it starts the same
// program again and tells it which function to run instead of its usual work.
package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const env = "INTERLOCK_PROC"

// A Func is what a process does. It gets its arguments, talks by standard input and output, and
// should end when standard input does, so that it never outlives who started it.
type Func func(args []string)

// Run runs the function that this process was started for and exits, or returns if it was started
// as usual. It must be the first thing that the program does.
func Run(funcs map[string]Func) {
	name, ok := os.LookupEnv(env)
	if !ok {
		return
	}
	os.Unsetenv(env)
	funcs[name](os.Args[1:])
	os.Exit(0)
}

// Pending reports whether this process was started to run a function, and [Run] has not done so.
func Pending() bool {
	_, ok := os.LookupEnv(env)
	return ok
}

// Command is a command that runs the named function. The kernel does not kill it with its parent (Pdeathsig), for it
// would with the thread that has started it, which may end any time.
func Command(name string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), env+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// A Process is a running function. Its methods panic if it does not do as told.
type Process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
	end   func() error // waits until it has ended
}

// Start starts the named function in a process.
func Start(name string, args ...string) *Process { return StartCommand(Command(name, args...)) }

// StartCommand starts a command made by [Command].
func StartCommand(cmd *exec.Cmd) *Process {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		panic(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	p := &Process{cmd: cmd, stdin: stdin, lines: make(chan string, 1000)}
	go func() {
		for in := bufio.NewScanner(stdout); in.Scan(); {
			p.lines <- in.Text()
		}
		close(p.lines)
	}()
	p.end = sync.OnceValue(func() error {
		for range p.lines {
		}
		stdin.Close()
		return cmd.Wait()
	})
	return p
}

// Pid is the process's number.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Say sends a line to the process.
func (p *Process) Say(line string) { fmt.Fprintln(p.stdin, line) }

// Line returns the next line that the process prints, or false if there is none by the timeout.
func (p *Process) Line(timeout time.Duration) (string, bool) {
	select {
	case line, ok := <-p.lines:
		return line, ok
	case <-time.After(timeout):
		return "", false
	}
}

// patience is for what will happen unless something is broken, however slow the machine.
const patience = 60 * time.Second

// Expect waits for a line that begins with want, and returns the rest of it.
func (p *Process) Expect(want string) string {
	line, ok := p.Line(patience)
	rest, found := strings.CutPrefix(line, want)
	if !ok || !found {
		panic(fmt.Sprintf("process said %q (%t), expected %q", line, ok, want))
	}
	return strings.TrimSpace(rest)
}

// Ask is Say and Expect.
func (p *Process) Ask(line, want string) string {
	p.Say(line)
	return p.Expect(want)
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) { p.cmd.Process.Signal(sig) }

// Kill kills the process and waits until it is gone. Whether it had died of something else before, [Process.Wait] tells.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	p.end()
}

// Wait waits until the process has ended, and returns nil if its exit status is 0.
func (p *Process) Wait() error { return p.end() }

// Close ends the process's input and waits until it has ended. An exit status that is not 0
// is an error.
func (p *Process) Close() error {
	p.stdin.Close()
	return p.end()
}
