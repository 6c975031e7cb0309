package client

import (
	"bytes"
	"errors"
)

// headWatch looks at a request's head as it arrives, for what fasthttp would wait for the end of, or lets
// pass: a line that ends in LF alone, and another version of HTTP. It sees heads that begin with a read of
// their own; those that have come together with the request before are left to checkHead.
type headWatch struct {
	state watchState
	lines int      // that have ended, blank ones before the first left out
	open  int      // bytes of the line that has not ended
	last  byte     // of what has been seen
	tail  [16]byte // of the request line

	bareLF     bool // a line ended without CR
	badVersion bool // the request line ends in a version that is not spoken here
}

type watchState uint8

const (
	watchOff  watchState = iota
	watchIdle            // the next read begins a head
	watchHead
)

// ErrBareLF is the error of reading a head with a bare LF.
var ErrBareLF = errors.New("a line of the head ends without CR")

// BareLF reports whether a line of the newest head that was watched ended without CR.
func (c *Conn) BareLF() bool { return c.watch.bareLF }

// BadVersion reports whether that head's first line ends in a version that is not spoken here.
func (c *Conn) BadVersion() bool { return c.watch.badVersion }

// begin is called when a request has begun.
func (w *headWatch) begin() {
	if w.state == watchIdle { // without a read: it was in the server's buffer
		w.state = watchOff
	}
}

// look looks at what was read next. False if the head is not to be waited for.
func (w *headWatch) look(b []byte) bool {
	w.state = watchHead
	for {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			w.open += len(b)
			if len(b) > 0 {
				w.last = b[len(b)-1]
			}
			w.keepTail(b)
			return true
		}
		last := w.last
		if end > 0 {
			last = b[end-1]
		}
		if last != '\r' {
			w.state, w.bareLF = watchOff, true
			return false
		}
		switch length := w.open + end - 1; {
		case length > 0:
			if w.lines == 0 {
				w.keepTail(b[:end])
				w.badVersion = badVersion(bytes.TrimSuffix(w.tail[:], []byte{'\r'}))
			}
			w.lines++
		case w.lines > 0:
			w.state = watchOff // the body follows
			return true
		}
		w.open, w.last, b = 0, 0, b[end+1:]
	}
}

// keepTail keeps the end of a request line that b goes on with.
func (w *headWatch) keepTail(b []byte) {
	if w.lines > 0 {
		return
	}
	b = b[max(0, len(b)-len(w.tail)):]
	copy(w.tail[:], w.tail[len(b):])
	copy(w.tail[len(w.tail)-len(b):], b)
}

// badVersion reports whether a request line ends in a version of HTTP that is not spoken here.
func badVersion(line []byte) bool {
	version := line[bytes.LastIndexByte(line, ' ')+1:]
	return bytes.HasPrefix(version, versionPrefix) && !Spoken(version)
}

var versionPrefix = []byte("HTTP/")

// Spoken reports whether a version of HTTP is spoken here.
func Spoken(version []byte) bool {
	return string(version) == "HTTP/1.1" || string(version) == "HTTP/1.0"
}
