package client

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"sluice/limiter"
)

// TestConnectionThatEndsBeforeItsStreamsHead: the stream is told, once, and gets no head.
func TestConnectionThatEndsBeforeItsStreamsHead(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var memory limiter.Gate
	conns := Listen(ln, Settings{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), WriteTimeout: func() time.Duration { return time.Second },
		Left: func() {}, Memory: &memory, Each: 1})
	defer conns.Stop()
	defer conns.Close()
	there, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	conn, err := conns.Accept()
	if err != nil {
		t.Fatal(err)
	}
	lost, began := 0, 0
	conn.(*Conn).Inherit(&Heir{Begin: func([]byte) { began++ }, Lost: func() { lost++ }})
	if n := conns.Memory(); n != 1 {
		t.Errorf("an open connection takes %d bytes", n)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if lost != 1 || began != 0 {
		t.Errorf("it was lost %d times and began %d times", lost, began)
	}
	if n := conns.Memory(); n != 0 {
		t.Errorf("a closed connection takes %d bytes", n)
	}
}
