//go:build unix

package locktest

import "syscall"

const canStop = true

// stop suspends the process until resume is called.
func (p *process) stop() { p.Signal(syscall.SIGSTOP) }

func (p *process) resume() { p.Signal(syscall.SIGCONT) }
