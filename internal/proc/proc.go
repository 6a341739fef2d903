// Package proc runs functions of a program in other processes. It starts the
// same program again and tells it which function to run instead of its usual
// work.
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

// env is the environment variable that names the function to run.
const env = "INTERLOCK_PROC"

// A Func is a function that runs in another process. It receives the arguments
// of the process and communicates through standard input and output. It should
// return at the end of its input, so that it does not outlive its parent.
type Func func(args []string)

// Run runs the function that this process was started for, and exits. If the
// process was started in the usual way, Run returns. It must be the first call
// in the program.
func Run(funcs map[string]Func) {
	name, ok := os.LookupEnv(env)
	if !ok {
		return
	}
	os.Unsetenv(env)
	funcs[name](os.Args[1:])
	os.Exit(0)
}

// Pending reports whether this process was started to run a function and [Run]
// has not been called.
func Pending() bool {
	_, ok := os.LookupEnv(env)
	return ok
}

// Command returns a command that runs the named function.
//
// The command does not set Pdeathsig. That signal is sent when the thread that
// started the process exits, and a thread may exit at any time.
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

// A Process is another process that runs a function. Methods that expect a
// certain line of output panic if the process prints something else.
type Process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string  // lines of output
	wait  func() error // closes stdin and waits until the process has exited
}

// Start starts a process that runs the named function.
func Start(name string, args ...string) *Process { return StartCommand(Command(name, args...)) }

// StartCommand starts a command that [Command] returned.
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
	p.wait = sync.OnceValue(func() error {
		for range p.lines {
		}
		stdin.Close()
		return cmd.Wait()
	})
	return p
}

// Pid returns the process ID.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Say writes a line to the standard input of the process.
func (p *Process) Say(line string) { fmt.Fprintln(p.stdin, line) }

// Line returns the next line of output. It reports false if the output ends or
// no line arrives within the timeout.
func (p *Process) Line(timeout time.Duration) (string, bool) {
	select {
	case line, ok := <-p.lines:
		return line, ok
	case <-time.After(timeout):
		return "", false
	}
}

// expectTimeout is long enough for every process that works, however slow the
// machine is.
const expectTimeout = 60 * time.Second

// Expect waits for a line that begins with want and returns the rest of it.
func (p *Process) Expect(want string) string {
	line, ok := p.Line(expectTimeout)
	rest, found := strings.CutPrefix(line, want)
	if !ok || !found {
		if !ok {
			panic(fmt.Sprintf("the process printed no line, want %q", want))
		}
		panic(fmt.Sprintf("the process printed %q, want %q", line, want))
	}
	return strings.TrimSpace(rest)
}

// Ask calls Say and then Expect.
func (p *Process) Ask(line, want string) string {
	p.Say(line)
	return p.Expect(want)
}

// Signal sends a signal to the process.
func (p *Process) Signal(sig os.Signal) { p.cmd.Process.Signal(sig) }

// Kill kills the process and waits until it is gone. [Process.Wait] then tells
// whether the process had already exited in another way.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	p.wait()
}

// Wait waits until the process has exited. It returns an error unless the exit
// status is 0.
func (p *Process) Wait() error { return p.wait() }

// Close closes the standard input of the process and waits until the process
// has exited. It returns an error unless the exit status is 0.
func (p *Process) Close() error {
	p.stdin.Close()
	return p.wait()
}
