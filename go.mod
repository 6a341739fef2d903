module github.com/interlock-go/interlock

go 1.24.0

require (
	go.uber.org/goleak v1.2.1
	golang.org/x/sync v0.7.0
	golang.org/x/sys v0.17.0
)
