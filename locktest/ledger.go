package locktest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/interlock-go/interlock/lockedfile"
)

// A ledger is the path of a file where units are booked, by appending: after they were acquired, and before
// they are released. So as many as it says at any point were in use at once.
type ledger string

func newLedger[L lock](t *scene[L]) ledger {
	return ledger(filepath.Join(filepath.Dir(t.name), "ledger"))
}

// book makes its entry under a lock of its own, since not every system appends to a file at once: two entries
// would be one.
func (l ledger) book(n int64) error {
	ctx := lockedfile.WithoutSync(context.Background())
	return lockedfile.Append(ctx, string(l), fmt.Appendln(nil, n), 0o600)
}

// most returns how many units were booked at once, at most, and how many still are.
func (l ledger) most() (most, now int64, err error) {
	data, err := os.ReadFile(string(l))
	for line := range bytes.Lines(data) {
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
		if err != nil {
			return most, now, err
		}
		now += n
		most = max(most, now)
	}
	return most, now, err
}
