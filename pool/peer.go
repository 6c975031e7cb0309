package pool

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Gone reports whether the peer of a TCP connection, with or without TLS, has closed or
// reset it. It asks the kernel without reading a byte, so it may be called while others
// read and write. A connection that is no socket is never gone.
func Gone(conn net.Conn) bool {
	s, ok := rawConn(conn).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	if err := raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) }); err != nil {
		return true // closed on this side
	}
	return gone
}

// watched is an upstream's connection. What asking on it needs is made once.
//
// Its deadline, one for reading and writing, is a later one with each request and each event. To
// move the kernel connection's own takes longer than to read, and wakes a thread to wait for the
// new time; so that one stays behind, and is moved when it has passed.
type watched struct {
	net.Conn
	life
	deadline time.Time
	armed    time.Time // the connection's own: deadline, or before it
	duplex   bool      // one goroutine reads and another writes

	raw  syscall.RawConn // nil for what is no socket
	turn func(fd uintptr) bool

	// of the request that is asked
	write   func() error
	reused  bool
	began   bool
	stirred bool
	err     error // of write
}

func watch(conn net.Conn, a *address) *watched {
	w := &watched{Conn: conn, life: newLife(a)}
	w.turn = w.takeTurn
	if s, ok := conn.(syscall.Conn); ok {
		w.raw, _ = s.SyscallConn()
	}
	return w
}

// SetDeadline bounds reads and writes from now on, those under way not. A zero time is no
// deadline.
func (w *watched) SetDeadline(t time.Time) error {
	w.deadline = t
	if w.armed.IsZero() || t.Before(w.armed) {
		return w.arm()
	}
	return nil
}

// SetReadDeadline is SetDeadline: nothing reads and writes at once.
func (w *watched) SetReadDeadline(t time.Time) error { return w.SetDeadline(t) }

// SetWriteDeadline is SetDeadline too.
func (w *watched) SetWriteDeadline(t time.Time) error { return w.SetDeadline(t) }

func (w *watched) arm() error {
	w.armed = w.deadline
	return w.Conn.SetDeadline(w.deadline)
}

// early reports whether what ended with err may go on: the connection's own deadline had
// stayed behind.
func (w *watched) early(err error) bool {
	return err != nil && !w.duplex && errors.Is(err, os.ErrDeadlineExceeded) && (w.deadline.IsZero() || time.Now().Before(w.deadline)) && w.arm() == nil
}

func (w *watched) Read(b []byte) (n int, err error) {
	for {
		if n, err = w.Conn.Read(b); n > 0 || !w.early(err) {
			return n, vanished(err)
		}
	}
}

func (w *watched) Write(b []byte) (n int, err error) {
	for {
		m, err := w.Conn.Write(b[n:])
		if n += m; !w.early(err) {
			return n, vanished(err)
		}
	}
}

// vanished replaces the error of a peer that does not answer on TCP, which says that it is a timeout.
func vanished(err error) error {
	if err != nil && errors.Is(err, syscall.ETIMEDOUT) {
		return errVanished
	}
	return err
}

var errStirred = errors.New("something has come that nobody asked for")

// ask has write write a request and waits until something comes back, or the read deadline passes.
// Before, it makes sure that nothing has come to a reused connection; if so, the error is
// errStirred and nothing is written. What is no socket is neither asked nor waited for.
//
// The question to the kernel replaces the read that would find nothing: who reads after it
// has written must look before it can wait, and here the look comes before the writing.
func (w *watched) ask(reused bool, write func() error) (written bool, err error) {
	if w.raw == nil {
		err := write()
		return err == nil, err
	}
	w.write, w.reused, w.began, w.stirred, w.err = write, reused, false, false, nil
	for {
		if err = w.raw.Read(w.turn); !w.early(err) {
			break
		}
	}
	w.write = nil
	switch {
	case w.stirred, err != nil && !w.began && !isTimeout(err): // or closed on this side
		return false, errStirred
	case w.err != nil:
		return false, w.err
	}
	return w.began, err
}

// takeTurn runs first when the wait for something to read has been prepared, and then
// each time that something may be there. It reports whether the wait is over.
func (w *watched) takeTurn(fd uintptr) bool {
	if w.began {
		return true
	}
	w.began = true
	_, err := peek(int(fd))
	came := err != unix.EAGAIN
	if came && w.reused {
		w.stirred = true
		return true
	}
	w.err = w.write()
	return came || w.err != nil
}

// readArrived reads what the kernel has already. The error is errNoMore where that is nothing.
func (w *watched) readArrived(p []byte) (n int, err error) {
	if w.raw == nil {
		return 0, errNoMore
	}
	if rerr := w.raw.Read(func(fd uintptr) bool {
		n, err = unix.Read(int(fd), p)
		return err != unix.EINTR
	}); rerr != nil {
		return 0, rerr
	}
	switch {
	case err == unix.EAGAIN:
		return 0, errNoMore
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// rawConn is what a TLS connection runs over, TLS to a proxy too, or conn itself.
func rawConn(conn net.Conn) net.Conn {
	for {
		switch c := conn.(type) {
		case *tls.Conn:
			conn = c.NetConn()
		case *records:
			conn = c.Conn
		default:
			return conn
		}
	}
}

// peek looks at the first byte that has come, without waiting or taking it.
func peek(fd int) (int, error) {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n, err
}
