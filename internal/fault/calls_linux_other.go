//go:build linux && !amd64

package fault

// Other architectures have other call numbers, and those with 32 bits have
// other calls. They have no tables yet.
var (
	calls         map[int32]*call
	unlistedCalls map[int32]string
)
