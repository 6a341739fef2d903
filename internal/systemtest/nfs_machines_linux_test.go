package systemtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/proc"
	"github.com/interlock-go/interlock/internal/systemtest/kit"
)

// The tests of NFS run on the first of two clients. An agent runs on the other
// client and on the server, and starts processes for them.

// These are the addresses of the agents, as .ci/nfs starts them.
const otherClient, nfsServer = "10.77.0.3:7000", "10.77.0.1:7000"

// Both clients have the directories /mnt/v3, /mnt/v4.0 and /mnt/v4.2.
var nfsVersions = []string{"3", "4.0", "4.2"}

func init() {
	children["agent"] = agent
	children["remote"] = remote
	children["shell"] = func(args []string) {
		cmd := exec.Command("sh", "-c", args[0])
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
		fmt.Println("shell ends:", cmd.Run())
	}
}

// agent accepts connections, and starts a process for each. It kills the
// process when the connection ends.
func agent(args []string) {
	l := interlock.Must(net.Listen("tcp", args[0]))
	fmt.Println("agent ready")
	for {
		conn := interlock.Must(l.Accept())
		go func() {
			defer conn.Close()
			in := bufio.NewReader(conn)
			var args []string
			line, _ := in.ReadBytes('\n')
			if json.Unmarshal(line, &args) != nil {
				return
			}
			cmd := proc.Command(args[0], args[1:]...)
			stdin := interlock.Must(cmd.StdinPipe())
			cmd.Stdout = conn
			interlock.Must(0, cmd.Start())
			go func() {
				io.Copy(stdin, in)
				cmd.Process.Kill()
			}()
			cmd.Wait()
		}()
	}
}

// remote stands for a process that the agent of another machine starts. Its
// first argument is the address of the agent.
func remote(args []string) {
	conn := interlock.Must(net.Dial("tcp", args[0]))
	interlock.Must(0, json.NewEncoder(conn).Encode(args[1:]))
	go func() {
		io.Copy(conn, os.Stdin)
		os.Exit(0)
	}()
	io.Copy(os.Stdout, conn)
}

// startHere starts a process on this client.
func startHere(t testing.TB, name string, args ...string) *proc.Process {
	t.Helper()
	p := proc.Start(name, args...)
	t.Cleanup(p.Kill)
	return p
}

// startRemote starts a process on another machine.
func startRemote(t testing.TB, machine, name string, args ...string) *proc.Process {
	t.Helper()
	return startHere(t, "remote", append([]string{machine, name}, args...)...)
}

// remoteLocker starts a locker on the other client.
func remoteLocker(t testing.TB, path string) *proc.Process {
	t.Helper()
	p := startRemote(t, otherClient, "locker", path)
	p.Expect("ready")
	return p
}

// shell runs a command on another machine.
func shell(t testing.TB, machine, command string) {
	t.Helper()
	p := startRemote(t, machine, "shell", command)
	for {
		line, ok := p.Line(kit.Patience)
		switch {
		case !ok:
			t.Fatalf("%s does not finish: %s", machine, command)
		case line == "shell ends: <nil>":
			return
		case strings.HasPrefix(line, "shell ends: "):
			t.Fatalf("%s: %s: %s", machine, command, line)
		}
		t.Log(line)
	}
}

func needNFS(t *testing.T) {
	t.Helper()
	if os.Getenv("INTERLOCK_NFS") == "" {
		t.Skip("needs the machines that make test-nfs starts")
	}
}

// onNFS runs a test on each version, on all at once. The test gets the path of
// a lock file that does not exist yet, which is the same on both clients.
func onNFS(t *testing.T, test func(t *testing.T, path string)) {
	needNFS(t)
	for _, version := range nfsVersions {
		t.Run("v"+version, func(t *testing.T) {
			t.Parallel()
			test(t, nfsPath(t, version))
		})
	}
}

func nfsPath(t *testing.T, version string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/mnt/v"+version, "test-*")
	kit.Must(t, err)
	return filepath.Join(dir, "lock")
}

// took logs how long a call took. It fails if the call took much longer than on
// a busy machine.
func took(t *testing.T, what string, limit time.Duration, call func()) {
	t.Helper()
	begin := time.Now()
	call()
	d := time.Since(begin)
	t.Logf("%s: %v", what, d.Round(time.Millisecond))
	if d > limit {
		t.Errorf("%s took more than %v", what, limit)
	}
}
