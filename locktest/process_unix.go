//go:build unix

package locktest

import "syscall"

const canStop = true

// stop makes the process stand still, until resume.
func (p *process) stop() { p.Signal(syscall.SIGSTOP) }

func (p *process) resume() { p.Signal(syscall.SIGCONT) }
