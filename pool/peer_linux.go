package pool

import "golang.org/x/sys/unix"

// hungUp asks for POLLRDHUP, which is seen even behind bytes that nobody has read yet.
func hungUp(fd int) bool { return polled(fd, unix.POLLRDHUP) }

func hungUpOrReadable(fd int) bool { return polled(fd, unix.POLLRDHUP|unix.POLLIN) }

func polled(fd int, events int16) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}
