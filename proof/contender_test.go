//go:build linux

package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/interlock-go/interlock"
	"github.com/interlock-go/interlock/internal/portalocker"
	"github.com/interlock-go/interlock/internal/proc"
	"golang.org/x/sys/unix"
)

// A lock of a capacity, see history, as one client sees it.
type lock interface {
	// acquire takes the weight. If ctx has no end, it waits for as long as it takes.
	acquire(ctx context.Context, weight int64) error
	// try is acquire without waiting: ErrLocked.
	try(weight int64) error
	release(weight int64)
}

// A contender is a way to lock what is at path.
type contender struct {
	// open returns the lock for a client. It may be one that the clients of the process share.
	open func(path string, capacity int64) (lock, error)
	// weights are those that a client may take; 0 stands for all there is.
	weights []int64
}

var contenders = map[string]contender{
	"FileRWMutex":   {shareOne(openRWMutex), []int64{0, 1}},
	"FileRMutex":    {shareOne(openRMutex), []int64{0}},
	"FileSemaphore": {shareOne(openSemaphore), []int64{1, 1, 1, 2, 3, 0}},

	"flock(1)":              {openFlock, []int64{0, 1}},
	"portalocker":           {openPortalocker, []int64{0}},
	"portalocker semaphore": {openPortalockerSemaphore, []int64{1}},

	// Broken, see TestBrokenLocksAreFound.
	"without a look at the file": {openCareless, []int64{0, 1}},
	"released before the write":  {openHasty, []int64{0, 1}},
	"units taken one too few":    {openStingy, []int64{1, 2, 3, 0}},
}

// shareOne lets two of three clients share one object, and the others have one of their own.
func shareOne(open func(path string, capacity int64) (lock, error)) func(path string, capacity int64) (lock, error) {
	var mu sync.Mutex
	var one lock
	n := 0
	return func(path string, capacity int64) (l lock, err error) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%3 == 0 {
			return open(path, capacity)
		}
		if one == nil {
			if one, err = open(path, capacity); err != nil {
				one = nil
			}
		}
		return one, err
	}
}

type rwMutex struct{ *interlock.FileRWMutex }

func openRWMutex(path string, _ int64) (lock, error) {
	m, err := interlock.NewFileRWMutex(path)
	return rwMutex{m}, err
}

func (m rwMutex) acquire(ctx context.Context, weight int64) error {
	if weight == 1 {
		return m.RLockContext(ctx)
	}
	return m.LockContext(ctx)
}

func (m rwMutex) try(weight int64) error {
	if weight == 1 {
		return m.TryRLockContext(context.Background())
	}
	return m.TryLockContext(context.Background())
}

func (m rwMutex) release(weight int64) {
	if weight == 1 {
		m.RUnlock()
	} else {
		m.Unlock()
	}
}

// An rMutex has another owner each time, and locks several times for it.
type rMutex struct {
	m      *interlock.FileRMutex
	mu     sync.Mutex
	owner  interlock.Owner // who holds m
	levels int
}

func openRMutex(path string, _ int64) (lock, error) {
	m, err := interlock.NewFileRMutex(path)
	return &rMutex{m: m}, err
}

func (m *rMutex) acquire(ctx context.Context, _ int64) error {
	return m.lock(func(o interlock.Owner) error { return m.m.LockContext(ctx, o) })
}

func (m *rMutex) try(int64) error {
	return m.lock(func(o interlock.Owner) error { return m.m.TryLockContext(context.Background(), o) })
}

func (m *rMutex) lock(once func(interlock.Owner) error) error {
	o := interlock.NewOwner()
	if err := once(o); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owner, m.levels = o, 1
	for range rand.IntN(3) {
		m.m.Lock(o)
		m.levels++
	}
	return nil
}

func (m *rMutex) release(int64) {
	m.mu.Lock()
	o, levels := m.owner, m.levels
	m.mu.Unlock()
	for range levels {
		m.m.Unlock(o)
	}
}

type semaphore struct{ *interlock.FileSemaphore }

func openSemaphore(path string, capacity int64) (lock, error) {
	s, err := interlock.NewFileSemaphore(path, capacity)
	return semaphore{s}, err
}

func (s semaphore) acquire(ctx context.Context, weight int64) error { return s.Acquire(ctx, weight) }
func (s semaphore) release(weight int64)                            { s.Release(weight) }

func (s semaphore) try(weight int64) (err error) {
	defer func() {
		if r := recover(); r != nil { // the system refuses
			err = r.(error)
		}
	}()
	if !s.TryAcquire(weight) {
		return interlock.ErrLocked
	}
	return nil
}

// How often those look again that cannot wait.
const lookAgain = time.Millisecond

// poll is what those do who cannot wait until a context ends.
func poll(ctx context.Context, try func() error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := try(); err != interlock.ErrLocked {
			return err
		}
		time.Sleep(lookAgain)
	}
}

// A flockFile is locked by flock(1), through a descriptor that it inherits. After that it has to see to it by
// itself that the file is still the one at its path.
type flockFile struct {
	path string
	file *os.File
}

func openFlock(path string, _ int64) (lock, error) { return &flockFile{path: path}, nil }

func (f *flockFile) acquire(ctx context.Context, weight int64) error {
	return poll(ctx, func() error { return f.flock(weight, "--timeout=0.05") })
}

func (f *flockFile) try(weight int64) error { return f.flock(weight, "--nonblock") }

func (f *flockFile) flock(weight int64, how string) error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	mode := "--exclusive"
	if weight == 1 {
		mode = "--shared"
	}
	cmd := exec.Command("flock", mode, how, "3")
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	exit := (*exec.ExitError)(nil)
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 1, err == nil && !isAt(file, f.path):
		err = interlock.ErrLocked
	case errors.Is(err, unix.EBADF), exit != nil && exit.ExitCode() == 127:
		// The limit fell after the fork: dup2(2) to a number above it, or the linker cannot open a library.
		err = &os.PathError{Op: "flock(1)", Path: f.path, Err: unix.EMFILE}
	}
	if err != nil {
		file.Close()
		return err
	}
	f.file = file
	return nil
}

func (f *flockFile) release(int64) {
	unix.Flock(int(f.file.Fd()), unix.LOCK_UN)
	f.file.Close()
}

func isAt(file *os.File, path string) bool {
	info, err := file.Stat()
	at, pathErr := os.Stat(path)
	return err == nil && pathErr == nil && os.SameFile(info, at)
}

// A pythonLock is one of Python's portalocker.
type pythonLock struct {
	p    *proc.Process
	wait string // what to tell it
	once string
}

func openPortalocker(path string, _ int64) (lock, error) {
	return &pythonLock{portalocker.Run(), "lock " + path + " 0.05", "try " + path}, nil
}

func openPortalockerSemaphore(path string, capacity int64) (lock, error) {
	acquire := fmt.Sprintf("acquire %s %d ", path, capacity)
	return &pythonLock{portalocker.Run(), acquire + "0.05", acquire + "0"}, nil
}

func (l *pythonLock) acquire(ctx context.Context, _ int64) error {
	return poll(ctx, func() error { return l.ask(l.wait) })
}

func (l *pythonLock) try(int64) error { return l.ask(l.once) }

func (l *pythonLock) ask(line string) error {
	switch answer := l.p.Ask(line, ""); answer {
	case "ok":
	case "locked":
		return interlock.ErrLocked
	default:
		return errors.New(answer)
	}
	if l.p.Ask("current", "") != "ok" { // what it locked was replaced
		l.release(0)
		return interlock.ErrLocked
	}
	return nil
}

func (l *pythonLock) release(int64) { l.p.Ask("release", "ok") }

// A carelessFile is locked by flock(2), and opened only once, whatever happens to it.
type carelessFile struct{ fd int }

func openCareless(path string, _ int64) (lock, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	return carelessFile{fd}, err
}

func (f carelessFile) acquire(ctx context.Context, weight int64) error {
	return poll(ctx, func() error { return f.try(weight) })
}

func (f carelessFile) try(weight int64) error {
	mode := unix.LOCK_EX
	if weight == 1 {
		mode = unix.LOCK_SH
	}
	if err := unix.Flock(f.fd, mode|unix.LOCK_NB); err != nil {
		return interlock.ErrLocked
	}
	return nil
}

func (f carelessFile) release(int64) { unix.Flock(f.fd, unix.LOCK_UN) }

// A hastyMutex gives up a lock for writing as soon as it has it.
type hastyMutex struct{ rwMutex }

func openHasty(path string, capacity int64) (lock, error) {
	m, err := interlock.NewFileRWMutex(path)
	return hastyMutex{rwMutex{m}}, err
}

func (m hastyMutex) acquire(ctx context.Context, weight int64) error {
	err := m.rwMutex.acquire(ctx, weight)
	if err == nil && weight > 1 {
		m.Unlock()
	}
	return err
}

func (m hastyMutex) try(weight int64) error {
	err := m.rwMutex.try(weight)
	if err == nil && weight > 1 {
		m.Unlock()
	}
	return err
}

func (m hastyMutex) release(weight int64) {
	if weight == 1 {
		m.RUnlock()
	}
}

// A stingySemaphore takes one unit less than it is asked for, if that is several.
type stingySemaphore struct{ semaphore }

func openStingy(path string, capacity int64) (lock, error) {
	s, err := interlock.NewFileSemaphore(path, capacity)
	return stingySemaphore{semaphore{s}}, err
}

func (s stingySemaphore) acquire(ctx context.Context, n int64) error {
	return s.semaphore.acquire(ctx, max(1, n-1))
}
func (s stingySemaphore) try(n int64) error { return s.semaphore.try(max(1, n-1)) }
func (s stingySemaphore) release(n int64)   { s.semaphore.release(max(1, n-1)) }

// contend is a process with some clients, who use the lock at dir/lock as they please until they are told
// to stop. Its arguments are dir, the number of the process, a contender, a capacity, and how many clients.
func contend(args []string) {
	dir, c := args[0], contenders[args[2]]
	process, capacity, clients := number(args[1]), number(args[3]), number(args[4])
	j := openJournal(dir, int(process))
	value, err := os.OpenFile(filepath.Join(dir, "value"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for id := range int(clients) {
		cl := &client{id: id, journal: j, value: value, capacity: capacity, contender: c}
		all.Go(func() { cl.run(filepath.Join(dir, "lock"), stop) })
	}
	fmt.Println("ready")
	var line string
	fmt.Scanln(&line) // stop, or the end of the input
	close(stop)
	all.Wait()
	fmt.Println("stopped")
	fmt.Scanln(&line)
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

// A client does one thing after the other.
type client struct {
	id        int
	journal   *journal
	value     *os.File // what the lock guards
	capacity  int64
	contender contender
	turns     uint32
}

func (c *client) run(path string, stop <-chan struct{}) {
	var l lock
	for {
		select {
		case <-stop:
			return
		default:
		}
		if l == nil {
			c.journal.call(c.id, opens, 0, 0)
			opened, err := c.contender.open(path, c.capacity)
			if err != nil {
				c.journal.end(c.id, err.Error())
			} else {
				c.journal.end(c.id, done)
				l = opened
			}
		}
		if l != nil {
			c.turn(l)
		}
		if rand.IntN(4) > 0 {
			time.Sleep(rand.N(time.Millisecond))
		}
	}
}

// turn is a stay: see history.
func (c *client) turn(l lock) {
	c.turns++
	weight := c.contender.weights[rand.IntN(len(c.contender.weights))]
	if weight == 0 || weight > c.capacity {
		weight = c.capacity
	}
	var write uint64
	if weight == c.capacity {
		write = uint64(c.journal.process+1)<<40 | uint64(c.id)<<32 | uint64(c.turns)
	}
	ctx := context.Background()
	var err error
	switch how := [...]string{waits, waits, waits, waitsSome, tries}[rand.IntN(5)]; how {
	case waits:
		c.journal.call(c.id, how, weight, write)
		err = l.acquire(ctx, weight)
	case waitsSome:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(5*time.Millisecond))
		defer cancel()
		c.journal.call(c.id, how, weight, write)
		err = l.acquire(ctx, weight)
	case tries:
		c.journal.call(c.id, how, weight, write)
		err = l.try(weight)
	}
	switch {
	case errors.Is(err, interlock.ErrLocked):
		c.journal.end(c.id, locked)
		return
	case err != nil && err == ctx.Err():
		c.journal.end(c.id, ended)
		return
	case err != nil:
		c.journal.end(c.id, err.Error())
		return
	}
	c.journal.acquired(c.id)
	saw := c.read()
	if rand.IntN(3) > 0 {
		time.Sleep(rand.N(500 * time.Microsecond))
	}
	if write != 0 {
		c.write(write)
	}
	c.journal.release(c.id, saw)
	l.release(weight)
	c.journal.end(c.id, done)
}

func (c *client) read() uint64 {
	var buf [20]byte
	n, _ := c.value.ReadAt(buf[:], 0)
	if n == 0 {
		return 0 // nobody has written yet
	}
	v, err := strconv.ParseUint(string(buf[:n]), 10, 64)
	if err != nil {
		panic(err)
	}
	return v
}

func (c *client) write(v uint64) {
	if _, err := c.value.WriteAt(fmt.Appendf(nil, "%020d", v), 0); err != nil {
		panic(err)
	}
}
