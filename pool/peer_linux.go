package pool

import (
	"time"

	"golang.org/x/sys/unix"
)

// hungUp asks for POLLRDHUP, which is seen even behind bytes that nobody has read yet.
func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// boundUnacknowledged sets TCP_USER_TIMEOUT. It holds for keep-alive probes too.
func boundUnacknowledged(fd int, d time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
