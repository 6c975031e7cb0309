//go:build !linux

package pool

import (
	"time"

	"golang.org/x/sys/unix"
)

// hungUp peeks. Behind bytes that nobody has read yet it sees nothing.
func hungUp(fd int) bool {
	n, err := peek(fd)
	return n == 0 && err == nil || err == unix.ECONNRESET
}

// boundUnacknowledged does nothing: keep-alive alone notices here.
func boundUnacknowledged(int, time.Duration) {}
