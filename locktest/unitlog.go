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

// A unitLog is the path of a file that records the units in use. A user of the
// semaphore appends n after it acquired n units, and -n before it releases
// them. So the sum of the entries up to any line was in use at one time.
type unitLog string

func newUnitLog[L lock](t *fixture[L]) unitLog {
	return unitLog(filepath.Join(filepath.Dir(t.name), "units"))
}

// record appends an entry. It locks the file, because not every system appends
// atomically: an entry could overwrite another.
func (l unitLog) record(n int64) error {
	ctx := lockedfile.WithoutSync(context.Background())
	return lockedfile.Append(ctx, string(l), fmt.Appendln(nil, n), 0o600)
}

// peak returns the largest number of units in use at one time, and the number
// in use at the end.
func (l unitLog) peak() (peak, now int64, err error) {
	data, err := os.ReadFile(string(l))
	for line := range bytes.Lines(data) {
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
		if err != nil {
			return peak, now, err
		}
		now += n
		peak = max(peak, now)
	}
	return peak, now, err
}
