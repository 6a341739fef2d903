//go:build linux && !amd64

package fault

// Not yet: the numbers of the calls are others, and for 32 bits the calls are.
var (
	calls  map[int32]*call
	strays map[int32]string
)
