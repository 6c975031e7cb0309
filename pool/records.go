package pool

import (
	"crypto/tls"
	"net"
)

// records lies under a tls.Conn. It follows the framing of the records (RFC 8446, section 5.1) that
// crypto/tls reads, and can keep crypto/tls from waiting for more. Both together tell whether
// anything is left in the tls.Conn, of which crypto/tls says nothing itself.
type records struct {
	net.Conn
	source source
	header [5]byte
	have   int // bytes of the header
	left   int // bytes of the record behind it
	one    [1]byte
}

// source is where a read of records takes its bytes from.
type source uint8

const (
	fromPeer    source = iota // as they come
	fromArrived               // only what the kernel has already
	fromNowhere               // none
)

// errNoMore is a temporary net.Error, which leaves a tls.Conn usable.
var errNoMore net.Error = noMore{}

type noMore struct{}

func (noMore) Error() string   { return "nothing more is read now" }
func (noMore) Timeout() bool   { return false }
func (noMore) Temporary() bool { return true }

// tlsOver begins TLS as a client over conn.
func tlsOver(conn net.Conn, c *tls.Config) *tls.Conn { return tls.Client(&records{Conn: conn}, c) }

// Read reads for crypto/tls.
func (r *records) Read(p []byte) (n int, err error) {
	switch r.source {
	case fromNowhere:
		return 0, errNoMore
	case fromArrived:
		n, err = r.Conn.(*watched).readArrived(p)
	default:
		n, err = r.Conn.Read(p)
	}
	r.follow(p[:n])
	return n, err
}

func (r *records) follow(p []byte) {
	for len(p) > 0 {
		if r.left > 0 {
			n := min(r.left, len(p))
			r.left -= n
			p = p[n:]
			continue
		}
		n := copy(r.header[r.have:], p)
		r.have += n
		p = p[n:]
		if r.have == len(r.header) {
			r.have, r.left = 0, int(r.header[3])<<8|int(r.header[4])
		}
	}
}

func (r *records) between() bool { return r.have == 0 && r.left == 0 }

// drained reports whether nothing is left in conn: no decrypted byte, no record and no part of one,
// on each level if TLS runs over TLS. Without TLS nothing ever is. What the kernel has is not asked.
func drained(conn net.Conn) bool {
	t, ok := conn.(*tls.Conn)
	if !ok {
		return true
	}
	n, err := readFrom(fromNowhere, t)
	if n > 0 || err != errNoMore {
		return false
	}
	for ok {
		r := t.NetConn().(*records)
		if !r.between() {
			return false
		}
		t, ok = r.Conn.(*tls.Conn)
	}
	return true
}

// spoke reports whether bytes have come on a new connection, on which nothing has been asked. (The
// handshake messages that TLS 1.3 lets a server send at any time are read and do not count.)
func spoke(conn net.Conn) bool {
	if t, ok := conn.(*tls.Conn); ok {
		n, _ := readFrom(fromArrived, t)
		return n > 0
	}
	var b [1]byte
	n, _ := conn.(*watched).readArrived(b[:])
	return n > 0
}

// readFrom reads a byte from t, the lowest level of which reads from s.
func readFrom(s source, t *tls.Conn) (int, error) {
	r := t.NetConn().(*records)
	for below, ok := r.Conn.(*tls.Conn); ok; below, ok = r.Conn.(*tls.Conn) {
		r = below.NetConn().(*records)
	}
	r.source = s
	defer func() { r.source = fromPeer }()
	return t.Read(r.one[:])
}
