package proxy

import (
	"context"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dialed keeps what a listener accepted.
type dialed struct {
	net.Listener
	conns chan net.Conn
}

func (d *dialed) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err == nil {
		d.conns <- conn
	}
	return conn, err
}

// TestAClientsSilenceIsNoticed: the socket of an accepted connection has the options.
func TestAClientsSilenceIsNoticed(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := &dialed{Listener: inner, conns: make(chan net.Conn, 1)}
	g := startOn(t, oneModel+"timeouts: {client: {write: 40s}}\n", "127.0.0.1:1", ln, nil)
	g.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", inner.Addr().String())
	}
	client, err := g.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	raw, err := (<-ln.conns).(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for option, want := range map[int]int{unix.TCP_USER_TIMEOUT: 40_000, unix.TCP_KEEPIDLE: 10, unix.TCP_KEEPINTVL: 5} {
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); err != nil || got != want {
				t.Errorf("option %d is %d, %v", option, got, err)
			}
		})
	}
}
