package client

import (
	"bytes"
	"errors"
	"net"
)

// An answer of unknown length to a client of HTTP/1.0, which knows no chunks, is bare: it ends with its
// connection. The server knows nothing of that. It writes a head that announces chunks, and the last of
// them at the end; the body goes past it, to the connection. So the announcement is taken out of the head,
// and the last chunk is not sent: it says that the answer is whole. A connection that is closed without it
// is reset, for else what was cut would look whole.
type bareState = uint32

const (
	bareNot bareState = iota
	bareHead
	bareBody
	bareWhole
)

var (
	chunkedLine = []byte("\r\nTransfer-Encoding: chunked\r\n")
	lastChunk   = []byte("0\r\n\r\n")
	errCut      = errors.New("the answer was cut")
)

// Bare reports whether the answer is bare.
func (c *Conn) Bare() bool { return c.bare.Load() != bareNot }

// MakeBare has the answer, whose head has not been written, be a bare one.
func (c *Conn) MakeBare() { c.bare.Store(bareHead) }

// writeBare is Write for a bare answer.
func (c *Conn) writeBare(b []byte) (int, error) {
	if c.broken != nil {
		return 0, c.broken
	}
	if c.bare.Load() != bareHead {
		if bytes.HasSuffix(b, lastChunk) {
			c.bare.Store(bareWhole)
		}
		return len(b), nil
	}
	c.head = append(c.head, b...)
	if !bytes.HasSuffix(c.head, emptyLine) {
		return len(b), nil // it did not fit into the server's buffer
	}
	c.bare.Store(bareBody)
	head := c.head
	c.head = nil
	// What comes before it in the buffer is of other answers.
	if at := bytes.LastIndex(head, chunkedLine); at >= 0 {
		head = append(head[:at], head[at+len(chunkedLine)-2:]...)
	}
	if h := c.heir.Swap(nil); h != nil {
		h.Begin(head)
		return len(b), nil
	}
	_, err := c.Send(head)
	return len(b), err
}

// CutShort has a stream end as one that is not whole, whatever frames it: the server's last chunk
// is refused, so that the server closes the connection. A body in chunks without its last is seen to
// be cut; a bare one is reset.
func (c *Conn) CutShort() {
	c.broken = errCut
	c.linger.Store(true) // a reset could overtake the error event
}

// reset closes a connection so that its client reads an error, under TLS too.
func reset(conn net.Conn) {
	if secure, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}
