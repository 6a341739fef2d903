//go:build linux

package proof

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"
)

// Operations on a lock. Each takes effect at one instant.
type (
	acquireOp struct{ weight int64 }
	releaseOp struct {
		weight int64
		reads  bool   // saw is known
		saw    uint64 // the value that the client read
		writes uint64 // the value that the client wrote, or 0
	}
)

// A state is the state of a correct lock and of the value that it guards.
type state struct {
	used  int64
	value uint64
}

// model returns the model of a correct lock with the given capacity.
func model(capacity int64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return state{} },
		Step: func(was, input, _ any) (bool, any) {
			s := was.(state)
			switch op := input.(type) {
			case acquireOp:
				s.used += op.weight
				return s.used <= capacity, s
			case releaseOp:
				if op.reads && op.saw != s.value {
					return false, s
				}
				if op.writes != 0 {
					s.value = op.writes
				}
				s.used -= op.weight
				return s.used >= 0, s
			}
			panic("unknown operation")
		},
		DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%T%+v", input, input) },
		DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
	}
}

// deathDelay is how long the locks of a process may seem to be held after it is
// gone.
const deathDelay = 100 * int64(time.Millisecond)

// operationsOf returns the operations of all attempts that had the lock. Other
// attempts have no effect.
//
// If a client was killed while it had the lock, it is unknown whether it wrote
// its value, unless it came as far as release. If it did write, the next client
// read the value.
func operationsOf(all []*attempt) []porcupine.Operation {
	seen := make(map[uint64]bool)
	for _, s := range all {
		if s.sawKnown {
			seen[s.saw] = true
		}
	}
	var ops []porcupine.Operation
	ids := make(map[[2]int]int)
	for _, s := range all {
		if s.acquired == 0 {
			continue
		}
		id, ok := ids[[2]int{s.process, s.client}]
		if !ok {
			id = len(ids)
			ids[[2]int{s.process, s.client}] = id
		}
		g := releaseOp{weight: s.weight, reads: s.sawKnown, saw: s.saw}
		if s.writes() && (s.sawKnown || seen[s.value]) {
			g.writes = s.value
		}
		end := s.ended
		if s.killed {
			end += deathDelay
		}
		// A process may acquire after its kill event. Porcupine treats
		// operations with equal times as concurrent, so the release must be
		// later.
		release := max(s.release, s.acquired+1)
		ops = append(ops,
			porcupine.Operation{ClientId: id, Input: acquireOp{s.weight}, Call: s.called, Return: s.acquired},
			porcupine.Operation{ClientId: id, Input: g, Call: release, Return: max(end, release)})
	}
	return ops
}

// errNoOrder is the error of a history that no correct lock can have.
var errNoOrder = errors.New("no order explains the history")

// check returns an error unless the history is one of a correct lock. If no
// order explains the history, check draws it to the file graph, unless graph is
// "".
func check(all []*attempt, capacity int64, graph string) error {
	if err := failures(all, capacity); err != nil {
		return err
	}
	ops := operationsOf(all)
	switch porcupine.CheckOperationsTimeout(model(capacity), ops, 2*time.Minute) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("the search for an order of %d operations took too long", len(ops))
	}
	if graph != "" {
		_, info := porcupine.CheckOperationsVerbose(model(capacity), ops, time.Minute)
		if err := porcupine.VisualizePath(model(capacity), info, graph); err != nil {
			return errors.Join(errNoOrder, err)
		}
	}
	return fmt.Errorf("%w of %d operations %s", errNoOrder, len(ops), graph)
}

// failures returns an error if a call failed without a reason. A call that
// waits as long as necessary must not fail. A try may fail only if another
// client is in its way. Any call may fail for lack of descriptors while the
// process has few.
func failures(all []*attempt, capacity int64) error {
	for _, s := range all {
		switch {
		case s.outcome == "" || s.outcome == done:
		case s.outcome == ended && s.how == waitUntilDone:
		case s.outcome == locked && s.how == tryOnce:
			if !excused(s, all, capacity) {
				return fmt.Errorf("a try failed, but no other client was in its way: %+v", *s)
			}
		case s.few && strings.HasSuffix(s.outcome, ": "+unix.EMFILE.Error()):
		default:
			return fmt.Errorf("a call failed: %+v", *s)
		}
	}
	return nil
}

// excused reports whether other clients were in the way of a try: they held too
// much of the lock, or waited. A try on a semaphore may also fail because
// another client was collecting several units.
func excused(try *attempt, all []*attempt, capacity int64) bool {
	used := int64(0)
	for _, s := range all {
		end := s.ended
		if s.killed {
			end += deathDelay
		}
		if s == try || s.called > try.ended || end < try.called {
			continue
		}
		if s.how != tryOnce || capacity < rwCapacity && s.weight > 1 {
			return true
		}
		if s.acquired != 0 {
			used += s.weight
		}
	}
	return used+try.weight > capacity
}

// overtaken returns the number of attempts that began after s and acquired
// before it.
func overtaken(s *attempt, all []*attempt) (n int) {
	for _, other := range all {
		if other.acquired != 0 && other.called > s.called && other.acquired < s.acquired {
			n++
		}
	}
	return n
}
