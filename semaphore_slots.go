package interlock

import (
	"context"
	"fmt"
	"slices"

	"github.com/interlock-go/interlock/internal/atpath"
	"github.com/interlock-go/interlock/internal/closewatch"
)

// A slot is one of the files of a semaphore. Holding its lock is one unit in
// use.
//
// At any time, a slot belongs to one of these, and only its owner touches it:
//
//   - the list held, of slots for the units that callers have,
//   - the list idle, of slots that this process does not hold,
//   - the lists untried and failed, of idle slots in a scan by the leader,
//   - the list collected, of slots for the leader,
//   - the goroutine that took it out of a list to lock or unlock it.
//
// The mutex of the semaphore guards the lists. It is not held while a slot is
// locked or unlocked, except by a call that returns at once.
type slot struct {
	file *lockFile

	// watched is the file that the watcher watches. The watcher's events
	// identify it by number.
	watched *sysFile
	number  int

	// spare is a second descriptor of the file. Closing it wakes a watcher.
	// Having it ready saves the time to open it. needSpare means that a new
	// one should be opened when the slot is next tried.
	spare     *closewatch.Spare
	spareOf   *sysFile
	needSpare bool
}

// slotPath returns the path of slot file k. portalocker uses the same names.
func (s *FileSemaphore) slotPath(k int64) string { return fmt.Sprintf("%s.%02d.lock", s.abs, k) }

// newSlot returns a slot that was never tried, or nil if there are no more. The
// leader calls it.
func (s *FileSemaphore) newSlot() *slot {
	if s.slots == s.size {
		return nil
	}
	path := s.slotPath(s.slots)
	s.slots++
	f := newLockFile(path, path, s.opts, false)
	f.device = s.gate.device
	return &slot{file: f}
}

// scan tries each slot once, until the leader has its units. ErrLocked means
// that there are not enough. The leader calls it.
func (s *FileSemaphore) scan(ctx context.Context) error {
	s.untried = s.takeIdle()
	defer s.endScan()
	for s.missing() > 0 {
		var sl *slot
		if n := len(s.untried); n > 0 {
			sl, s.untried = s.untried[n-1], s.untried[:n-1]
		} else if sl = s.newSlot(); sl == nil {
			if s.untried = s.takeIdle(); len(s.untried) == 0 {
				return ErrLocked
			}
			continue // these have just been released
		}
		err := s.lockSlot(ctx, sl)
		if err == nil {
			s.collect(ctx, sl)
			continue
		}
		s.failed = append(s.failed, sl)
		if err != ErrLocked {
			return err
		}
	}
	return nil
}

// endScan makes the scanned slots idle again. Those that failed will be tried
// last.
func (s *FileSemaphore) endScan() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = slices.Concat(s.failed, s.untried, s.idle)
	s.untried, s.failed = nil, nil
}

// lockSlot locks a slot if it is free, or returns ErrLocked. For the head of
// the queue, it also has the slot watched.
func (s *FileSemaphore) lockSlot(ctx context.Context, sl *slot) error {
	err := s.tryLockSlot(ctx, sl)
	if tooManyOpen(err) && s.dropSpares() {
		err = s.tryLockSlot(ctx, sl)
	}
	f := sl.file.file
	if sl.spare != nil && sl.spareOf != f { // the file was replaced
		sl.dropSpare()
		sl.needSpare = true
	}
	if sl.needSpare && f != nil && !sl.file.dead {
		sl.spare, _ = closewatch.OpenSpare(f.descriptor(), sl.file.path)
		sl.spareOf, sl.needSpare = f, false
	}
	return err
}

func (s *FileSemaphore) tryLockSlot(ctx context.Context, sl *slot) error {
	if !s.asHead {
		if sl.file.tryNow(exclusive) {
			return nil
		}
		return sl.file.try(ctx, exclusive)
	}
	for range 100 {
		opened, err := sl.file.open(ctx)
		if err != nil && err != atpath.ErrAgain && !leased(err) {
			return err
		}
		s.watch(sl)
		err = sl.file.try(ctx, exclusive)
		if err != ErrLocked || opened == nil || opened == sl.file.file {
			return err
		}
		// The file was replaced in between. The new one must be watched
		// before it is tried.
	}
	return ErrLocked
}

// watch tells the watcher to report when any process closes the slot's file.
func (s *FileSemaphore) watch(sl *slot) {
	if f := sl.file.file; f != nil && s.watcher != nil && sl.watched != f {
		if number, err := s.watcher.Add(sl.file.path); err == nil {
			sl.number, sl.watched, s.newWatches = number, f, true
		}
	}
}

// collect keeps a locked slot for the leader. If releases in this process have
// already given the leader enough, collect releases the slot.
func (s *FileSemaphore) collect(ctx context.Context, sl *slot) {
	if !s.offer(sl, false) {
		s.unlockAll(ctx, []*slot{sl})
	}
}

// offer adds a locked slot to those of the leader if it needs more, and reports
// whether it did. If toHead is set, it does so only if the leader is the head
// of the machine's queue, and wakes it when it has enough.
func (s *FileSemaphore) offer(sl *slot, toHead bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if toHead && !s.asHead || s.missingLocked() == 0 {
		return false
	}
	s.collected = append(s.collected, sl)
	if toHead && s.missingLocked() == 0 {
		s.wakeHeadLocked()
	}
	return true
}

// missing returns how many units the leader still needs.
func (s *FileSemaphore) missing() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missingLocked()
}

func (s *FileSemaphore) missingLocked() int64 {
	return s.queue.first.units - int64(len(s.collected))
}

// takeCollected removes and returns the slots that the leader collected.
func (s *FileSemaphore) takeCollected() []*slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.collected
	s.collected = nil
	return slots
}

// takeIdle removes and returns all idle slots. Those that are most likely free
// come last.
func (s *FileSemaphore) takeIdle() []*slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := s.idle
	s.idle = nil
	return idle
}

// addIdle adds slots that were released.
func (s *FileSemaphore) addIdle(slots []*slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, slots...)
}

// free releases slots: to the head of the queue if it is in this process, and
// otherwise to any process.
func (s *FileSemaphore) free(slots []*slot) {
	rest := slots[:0]
	for _, sl := range slots {
		// Do not hand over a slot whose file was replaced.
		if !(s.headNeeds() && sl.file.contended(context.Background(), exclusive) == nil && s.offer(sl, true)) {
			rest = append(rest, sl)
		}
	}
	if len(rest) > 0 {
		s.unlockAll(context.Background(), rest)
	}
}

// unlockAll unlocks slots, for any process to acquire.
func (s *FileSemaphore) unlockAll(ctx context.Context, slots []*slot) {
	for _, sl := range slots {
		sl.file.unlockUntil(ctx)
	}
	s.tellFree(slots)
}

// tellFree tells waiters that slots have been unlocked, and makes the slots
// idle.
func (s *FileSemaphore) tellFree(freed []*slot) {
	if s.gateWaiting() {
		// Wake the watchers of all slots, not just of one. The head may
		// not watch all of them: if a file was replaced, its process
		// may still have the old one open.
		for _, sl := range freed {
			s.wakeWatchers(sl)
		}
	}
	s.addIdle(freed)
	s.wakeHead()
}

// headNeeds reports whether the head of the machine's queue is in this process
// and needs units.
func (s *FileSemaphore) headNeeds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asHead && s.missingLocked() > 0
}

// gateWaiting calls gateWaitingLocked with the mutex held. If that reports
// true, this process no longer relies on having seen that no process waits.
func (s *FileSemaphore) gateWaiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.gateWaitingLocked()
	if waiting {
		s.clear = never
	}
	return waiting
}

// wakeWatchers wakes a head in another process, which watches the file of the
// slot.
func (s *FileSemaphore) wakeWatchers(sl *slot) {
	switch {
	case !closewatch.Available || sl.file.file == nil || sl.file.dead:
		// There is nothing to do. If the file was closed, that woke
		// watchers.
	case sl.spare != nil && sl.spareOf == sl.file.file:
		sl.dropSpare()
		sl.needSpare = true
	default:
		spare, err := closewatch.OpenSpare(sl.file.file.descriptor(), sl.file.path)
		if sl.needSpare = err == nil; tooManyOpen(err) {
			sl.close() // which wakes watchers, too
		}
		spare.Close()
	}
}

// dropSpares closes all spare descriptors, and reports whether there were any.
// It is for the leader and for Close.
func (s *FileSemaphore) dropSpares() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := false
	for _, slots := range [][]*slot{s.idle, s.held, s.collected, s.untried, s.failed} {
		for _, sl := range slots {
			dropped = dropped || sl.spare != nil
			sl.dropSpare()
		}
	}
	return dropped
}

// closeIdle closes what is not needed now, because descriptors are scarce. It
// is for the leader and for Close.
func (s *FileSemaphore) closeIdle() {
	s.dropSpares()
	idle := s.takeIdle()
	for _, sl := range idle {
		sl.close()
	}
	s.addIdle(idle)
	s.dropWaker()
}

// close closes the file of the slot, which releases its lock.
func (sl *slot) close() {
	sl.file.close()
	sl.dropSpare()
}

// dropSpare closes the spare descriptor, if there is one.
func (sl *slot) dropSpare() {
	sl.spare.Close()
	sl.spare, sl.spareOf, sl.needSpare = nil, nil, false
}
