package pool

import "golang.org/x/sys/unix"

// hungUp asks for POLLRDHUP, which is seen even behind bytes that nobody has read yet.
func hungUp(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
