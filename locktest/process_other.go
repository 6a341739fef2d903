//go:build !unix

package locktest

const canStop = false

func (p *process) stop()   {}
func (p *process) resume() {}
