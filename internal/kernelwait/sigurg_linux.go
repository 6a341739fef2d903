//go:build !interlock_bsd

package kernelwait

import (
	"os"
	"os/signal"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sigaction is the kernel's struct sigaction, which says how a signal is
// handled. It fits in eight words on every architecture.
type sigaction [8]uintptr

// isMIPS reports whether the kernel uses the layout and the sizes of MIPS.
var isMIPS = strings.HasPrefix(runtime.GOARCH, "mips")

// swapSigaction sets how SIGURG is handled, unless to is nil, and returns how
// it was handled before.
func swapSigaction(to *sigaction) (old sigaction) {
	setSize := uintptr(8)
	if isMIPS {
		setSize = 16
	}
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGURG), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(&old)), setSize, 0, 0)
	return old
}

// ignores reports whether there is no handler: by default, SIGURG is ignored.
func (a *sigaction) ignores() bool {
	handler := a[0]
	if isMIPS {
		handler = a[1] // after the flags
	}
	const sigDfl, sigIgn = 0, 1
	return handler == sigDfl || handler == sigIgn
}

// runtimeHandler is how SIGURG was handled when the package was initialized.
// Usually that is the handler of the Go runtime, but a package that was
// initialized earlier can have changed it.
var runtimeHandler = swapSigaction(nil)

// handleSIGURG installs the runtime's handler again if the program ignores
// SIGURG. Calls to [signal.Ignore] or [signal.Reset] do that, and so may C
// code. The program does not notice: the runtime's handler discards the signal.
func handleSIGURG() {
	now := swapSigaction(nil)
	switch {
	case !now.ignores():
	case runtimeHandler.ignores():
		// The signal was ignored from the start. Package os/signal can make the
		// runtime install its handler, unless C code ignored the signal before
		// the program was initialized.
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGURG)
		signal.Stop(signals)
	default:
		swapSigaction(&runtimeHandler)
	}
}
