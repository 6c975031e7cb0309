package pool

import (
	"crypto/tls"
	"net"
	"syscall"
)

// Gone reports whether the peer of a TCP connection, with or without TLS, has closed or
// reset it. It asks the kernel without reading a byte, so it may be called while others
// read and write. A connection that is no socket is never gone.
func Gone(conn net.Conn) bool { return ask(conn, hungUp) }

// watched is an upstream's connection that can be asked often: what a question needs is made
// once.
type watched struct {
	net.Conn
	raw  syscall.RawConn // nil for what is no socket
	look func(fd uintptr)
	saw  bool
}

func watch(conn net.Conn) *watched {
	w := &watched{Conn: conn}
	w.look = func(fd uintptr) { w.saw = hungUpOrReadable(int(fd)) }
	if s, ok := conn.(syscall.Conn); ok {
		w.raw, _ = s.SyscallConn()
	}
	return w
}

// stirred reports whether anything at all has come on a connection on which nothing is
// expected: its end, or bytes that would be taken for the answer to the next request.
func (w *watched) stirred() bool {
	if w.raw == nil {
		return false
	}
	return w.raw.Control(w.look) != nil || w.saw // an error: closed on this side
}

func ask(conn net.Conn, question func(fd int) bool) bool {
	s, ok := rawConn(conn).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	yes := false
	if err := raw.Control(func(fd uintptr) { yes = question(int(fd)) }); err != nil {
		return true // closed on this side
	}
	return yes
}

// rawConn is what a TLS connection runs over, or conn itself.
func rawConn(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return conn
}
