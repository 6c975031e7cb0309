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
	heir := &Heir{Begin: func([]byte) { began++ }, Lost: func() { lost++ }}
	conn.(*Conn).Inherit(heir)
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
	// The end of the process closes a connection that was idle a moment ago; the server closes it again.
	conn.(*Conn).Inherit(heir)
	if _, err := conn.Write(make([]byte, ServerBuffer)); err == nil {
		t.Error("a closed connection can be written to")
	}
	if err := conn.Close(); err == nil || lost != 2 || began != 0 {
		t.Errorf("closed once more (%v), it was lost %d times and began %d times", err, lost, began)
	}
}
