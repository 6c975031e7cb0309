//go:build !linux

package pool

import "golang.org/x/sys/unix"

// hungUp peeks. Behind bytes that nobody has read yet it sees nothing.
func hungUp(fd int) bool {
	n, err := peek(fd)
	return n == 0 && err == nil || err == unix.ECONNRESET
}

func hungUpOrReadable(fd int) bool {
	_, err := peek(fd)
	return err != unix.EAGAIN
}

func peek(fd int) (int, error) {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n, err
}
