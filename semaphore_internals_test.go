package interlock

// This file gives tests access to the internals of a FileSemaphore.

// queuedFor returns how many goroutines of this process wait for units of s.
func queuedFor(s *FileSemaphore) (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := s.queue.first; w != nil; w = w.next {
		n++
	}
	return n
}

// isHead reports whether a goroutine that waits for units of s is the head of
// the machine's queue.
func isHead(s *FileSemaphore) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asHead
}

// marked reports whether any process has set the waiting mark of the gate.
func marked(s *FileSemaphore) bool {
	g, err := openSemGate(s.abs+".gate.lock", s.size, s.opts, 1)
	if err != nil {
		return false
	}
	defer g.close()
	return g.waiting.taken(exclusive)
}
