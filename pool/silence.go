package pool

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Silence is how long an upstream may leave what was sent to it unacknowledged, or not take it, and
// the least that a client may. Without a bound the kernel sends again for a quarter of an hour.
const Silence = 20 * time.Second

// probes are sent on a connection on which nothing else is.
var probes = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 2}

// errVanished is no timeout of the request: the peer's machine, or the way to it, is gone.
var errVanished = errors.New("the peer's TCP has not answered for too long")

// NoticeSilence has a TCP connection, with or without TLS, end when its peer vanishes without closing
// it: an idle one after about 20 s, and on Linux one with data on its way when none of it was
// acknowledged, or taken, within unacknowledged. A connection that is no socket is left as it is.
func NoticeSilence(conn net.Conn, unacknowledged time.Duration) {
	conn = rawConn(conn)
	if w, ok := conn.(*watched); ok {
		conn = w.Conn
	}
	tcp, ok := conn.(interface {
		syscall.Conn
		SetKeepAliveConfig(net.KeepAliveConfig) error
	})
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(probes) // an error is of a connection that has ended already
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { boundUnacknowledged(int(fd), unacknowledged) })
	}
}
