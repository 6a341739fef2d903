package fusefs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Serve mounts a file system and serves it until the process is killed. The
// arguments are the directory and the mode.
func Serve(args []string) {
	dir, mode := args[0], args[1]
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	err = unix.Mount("interlock", dir, "fuse.interlock", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", dev))
	if err != nil {
		fmt.Println("cannot mount:", err)
		return
	}
	s := &server{
		dev: dev, order: binary.LittleEndian, mode: mode, noLinks: mode == "refuses",
		names: map[string]uint64{"lock": 2}, last: 2, removed: map[uint64]bool{},
		holders: map[lockID]map[uint64]uint32{}, data: map[uint64][]byte{}, slow: map[uint64]bool{},
	}
	go s.obey()
	fmt.Println("mounted")
	s.serve()
}

// A server answers the requests of the kernel.
type server struct {
	dev     int
	order   byteOrder // of the kernel; under qemu it can differ from the program's
	noLinks bool

	mu      sync.Mutex
	mode    string
	names   map[string]uint64
	last    uint64 // node
	removed map[uint64]bool
	holders map[lockID]map[uint64]uint32 // by owner: unix.F_RDLCK or unix.F_WRLCK
	data    map[uint64][]byte
	slow    map[uint64]bool // requests to be answered soon, in the mode interruptible
}

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

type lockID struct {
	flock bool // by flock(2), rather than fcntl(2)
	node  uint64
}

// obey switches to the mode silent when it reads a line. It exits at the end of
// the input, when the process that started this one has ended.
func (s *server) obey() {
	defer os.Exit(0)
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return
	}
	s.mu.Lock()
	s.mode = "silent"
	s.mu.Unlock()
	fmt.Println("silent")
	in.ReadString('\n')
}

func (s *server) serve() {
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(s.dev, buf)
		if err == unix.EINTR || err == unix.ENOENT { // the latter: the request was interrupted
			continue
		}
		if err != nil {
			return
		}
		if n == int(binary.BigEndian.Uint32(buf)) { // a request begins with its length
			s.order = binary.BigEndian
		}
		s.answer(request{
			op:     s.order.Uint32(buf[4:]),
			unique: s.order.Uint64(buf[8:]),
			node:   s.order.Uint64(buf[16:]),
			body:   buf[40:n],
		})
	}
}

// A request is what the kernel sends.
type request struct {
	op     uint32
	unique uint64 // identifies the answer
	node   uint64 // an inode
	body   []byte
}

// The operations, as in the kernel's header uapi/linux/fuse.h.
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opUnlink      = 10
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFlush       = 25
	opInit        = 26
	opGetlk       = 31
	opSetlk       = 32
	opSetlkw      = 33
	opCreate      = 35
	opInterrupt   = 36
	opBatchForget = 42
)

func (s *server) answer(r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode == "interruptible" && s.delay(r) {
		return
	}
	s.answerNow(r)
}

// delay answers a request later. If a signal interrupts the process that
// waits for the answer, that is EINTR.
func (s *server) delay(r request) bool {
	switch r.op {
	case opLookup, opGetattr, opGetlk:
		s.slow[r.unique] = true
		r.body = slices.Clone(r.body)
		time.AfterFunc(3*time.Millisecond, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.slow[r.unique] {
				delete(s.slow, r.unique)
				s.answerNow(r)
			}
		})
		return true
	case opInterrupt:
		if unique := s.order.Uint64(r.body); s.slow[unique] {
			delete(s.slow, unique)
			s.reply(request{unique: unique}, unix.EINTR, nil)
		}
		return true
	}
	return false
}

func (s *server) answerNow(r request) {
	switch r.op {
	case opInit: // version 7.31, with locks of fcntl(2) and flock(2)
		b := s.order.AppendUint32(s.order.AppendUint32(nil, 7), 31)
		b = s.order.AppendUint32(s.order.AppendUint32(b, 4096), 1<<1|1<<10)
		b = s.order.AppendUint32(s.order.AppendUint32(b, 0), 4096)
		s.reply(r, 0, append(b, make([]byte, 40)...))
	case opLookup:
		if node, ok := s.names[string(r.body[:len(r.body)-1])]; ok {
			s.reply(r, 0, s.entry(node))
		} else {
			s.reply(r, unix.ENOENT, nil)
		}
	case opCreate:
		s.last++
		s.names[string(r.body[16:len(r.body)-1])] = s.last
		s.reply(r, 0, append(s.entry(s.last), s.opened()...))
	case opGetattr:
		if s.removed[r.node] {
			s.reply(r, unix.ENOENT, nil)
		} else {
			s.reply(r, 0, append(make([]byte, 16), s.attributes(r.node)...))
		}
	case opUnlink:
		name := string(r.body[:len(r.body)-1])
		s.removed[s.names[name]] = true
		delete(s.names, name)
		s.reply(r, 0, nil)
	case opOpen:
		s.reply(r, 0, s.opened())
	case opRead:
		s.reply(r, 0, s.data[r.node])
	case opWrite:
		s.data[r.node] = slices.Clone(r.body[40:])
		s.reply(r, 0, s.order.AppendUint64(nil, uint64(len(r.body)-40)))
	case opStatfs:
		s.reply(r, 0, make([]byte, 80))
	case opGetlk, opSetlk, opSetlkw:
		s.answerLock(r)
	case opRelease:
		if s.order.Uint32(r.body[12:])&2 != 0 { // of a lock by flock(2)
			delete(s.holders[lockID{true, r.node}], s.order.Uint64(r.body[16:]))
		}
		s.reply(r, 0, nil)
	case opFlush:
		s.reply(r, 0, nil)
	case opForget, opInterrupt, opBatchForget: // have no answer
	default:
		s.reply(r, unix.ENOSYS, nil)
	}
}

// answerLock answers a request for a lock, or to unlock.
func (s *server) answerLock(r request) {
	owner, kind := s.order.Uint64(r.body[8:]), s.order.Uint32(r.body[32:])
	id := lockID{s.order.Uint32(r.body[40:])&1 != 0, r.node}
	held := s.holders[id]
	conflict := false
	for other, otherKind := range held {
		excludes := kind == unix.F_WRLCK || otherKind == unix.F_WRLCK || s.mode == "strict"
		conflict = conflict || other != owner && kind != unix.F_UNLCK && excludes
	}
	conflict = conflict && s.mode != "grants"
	switch {
	case s.mode == "silent", r.op == opSetlkw && conflict && s.mode != "refuses": // no answer
	case s.mode == "unable" && id.flock:
		s.reply(r, unix.EBADF, nil)
	case r.op == opGetlk:
		b := slices.Clone(r.body[16:40])
		if !conflict {
			s.order.PutUint32(b[16:], unix.F_UNLCK)
		}
		s.reply(r, 0, b)
	case conflict:
		s.reply(r, unix.EAGAIN, nil)
	case kind == unix.F_UNLCK && s.mode != "hoards":
		delete(held, owner)
		s.reply(r, 0, nil)
	default:
		if held == nil {
			held = map[uint64]uint32{}
			s.holders[id] = held
		}
		if held[owner] = kind; kind == unix.F_UNLCK {
			held[owner] = unix.F_WRLCK
		}
		s.reply(r, 0, nil)
	}
}

func (s *server) reply(r request, errno unix.Errno, body []byte) {
	b := s.order.AppendUint32(nil, uint32(16+len(body)))
	b = s.order.AppendUint32(b, uint32(-int32(errno)))
	b = s.order.AppendUint64(b, r.unique)
	unix.Write(s.dev, append(b, body...))
}

// attributes returns a struct fuse_attr.
func (s *server) attributes(node uint64) []byte {
	mode, links := uint32(unix.S_IFREG|0o644), uint32(1)
	if node == 1 {
		mode, links = unix.S_IFDIR|0o755, 2
	} else if s.noLinks {
		links = 0
	}
	b := s.order.AppendUint64(nil, node)
	b = append(b, make([]byte, 52)...)
	b = s.order.AppendUint32(b, mode)
	b = s.order.AppendUint32(b, links)
	return append(b, make([]byte, 20)...)
}

// entry returns a struct fuse_entry_out.
func (s *server) entry(node uint64) []byte {
	return append(append(s.order.AppendUint64(nil, node), make([]byte, 32)...), s.attributes(node)...)
}

// opened returns a struct fuse_open_out for a file whose contents the kernel
// must not cache, because it does not know the size.
func (s *server) opened() []byte {
	return append(s.order.AppendUint32(make([]byte, 8), 1), 0, 0, 0, 0)
}
