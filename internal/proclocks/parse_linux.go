//go:build !interlock_bsd

package proclocks

import (
	"math"
	"strconv"
	"strings"
)

// parse parses a line of /proc/locks, without its number, see proc(5):
//
//	FLOCK  ADVISORY  WRITE 1234 08:01:4711 0 EOF
//	-> FLOCK  ADVISORY  READ 1235 08:01:4711 0 EOF
//
// The arrow marks a lock that waits for the one above it. The PID of an open
// file description lock is -1. Leases are not locks, and parse rejects them, as
// it rejects all else that it does not know.
func parse(line string) (l Lock, ok bool) {
	fields := strings.Fields(line)
	if len(fields) > 0 && fields[0] == "->" {
		l.Waiting = true
		fields = fields[1:]
	}
	if len(fields) != 7 {
		return Lock{}, false
	}
	switch l.Kind = fields[0]; l.Kind {
	case "FLOCK", "OFDLCK", "POSIX":
	default:
		return Lock{}, false
	}
	l.Shared = fields[2] == "READ"
	pid, errPID := strconv.Atoi(fields[3])
	l.PID = max(pid, 0)
	var errStart, errEnd error
	l.Start, errStart = strconv.ParseInt(fields[5], 10, 64)
	if l.End = math.MaxInt64; fields[6] != "EOF" {
		l.End, errEnd = strconv.ParseInt(fields[6], 10, 64)
	}
	if errPID != nil || errStart != nil || errEnd != nil {
		return Lock{}, false
	}
	return l, true
}
