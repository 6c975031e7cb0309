// Package sse cuts a stream of Server-Sent Events into whole events without
// decoding or changing a byte, and writes them on with keep-alive comments in
// silence. The format is the WHATWG HTML standard's, section 9.2 "Server-sent
// events": lines end in LF, CR LF or CR, a blank line ends an event, a line that
// begins with a colon is a comment.
package sse

import (
	"bytes"
	"errors"
	"io"
)

var (
	// ErrTooLong is returned by Reader.Next for an event longer than the Reader's limit.
	ErrTooLong = errors.New("event is longer than the limit")
	// ErrNoRoom is returned by Reader.Next for an event for which hold refused a buffer.
	ErrNoRoom = errors.New("there is no memory for an event of this length")
)

// Source is a stream body.
type Source interface {
	io.Reader
	// Ready reports whether the next Read returns without waiting for the network.
	Ready() bool
}

// Event is one block of the stream: an event, or what stands between events
// (comments, blank lines), which no decoder dispatches. Its slices are valid until
// the next call of Next.
type Event struct {
	// Raw is the block as it came, with its line ends.
	Raw []byte
	// Name is the value of the last event field, nil without one.
	Name []byte
	// Data is the data fields' values, joined by LF as a decoder does.
	Data []byte
	// DataAt is where in Raw the value of the first data field begins, -1 without one.
	DataAt int
	// Whole is false for the rest of a stream that ended inside a block.
	Whole bool
}

// HasData reports whether a decoder would see the block: it has a data field.
func (e *Event) HasData() bool { return e.DataAt >= 0 }

// Reader cuts a Source into Events. Make it ready with Reset.
type Reader struct {
	src     Source
	max     int
	idle    func() error
	hold    func(int) bool
	buf     []byte
	open    bool  // a block is being read
	begin   int   // of the block being read
	line    int   // of its line being read
	look    int   // everything before has no line end, or is done with
	end     int   // of what has been read
	returns bool  // a CR has come
	filled  bool  // the last read left no room: more has come
	err     error // from src, given out when the buffer is spent
	some    bool  // the block has a line that is neither blank nor a comment
	first   bool  // no block yet: a byte order mark may stand here
	cr      bool  // the last block ended in CR: a LF that follows belongs to it
	join    []byte
}

// Reset makes r read from src. An event longer than max bytes is an error. idle, if
// not nil, is called before each read that might wait, so that what came before can be
// sent on first; its error ends the reading. hold, if not nil, is called before the Reader's
// buffers grow, with the bytes that they would take, and when they are smaller again; false
// refuses the growth. The Reader keeps small buffers from use to use, large ones only while an
// event needs them.
func (r *Reader) Reset(src Source, max int, idle func() error, hold func(bytes int) bool) {
	*r = Reader{src: src, max: max, idle: idle, hold: hold, buf: r.buf, join: r.join, first: true}
	if r.Size() > keepSize {
		r.buf, r.join = nil, nil
	}
}

// Size is how many bytes of buffer the Reader holds on to.
func (r *Reader) Size() int { return cap(r.buf) + cap(r.join) }

// A stream begins with the small buffer; one that comes faster than it is read gets the other.
const (
	firstRead = 4 << 10
	fastRead  = 16 << 10
	// keepSize is how much of both buffers is kept when no event needs more.
	keepSize = 2 * fastRead
)

// Peek returns what has been read and not yet given out. If that is nothing, it reads once. An error
// of the source is left to Next, but for a timeout. The bytes are valid until the next call.
func (r *Reader) Peek() ([]byte, error) {
	if r.look == r.end && r.err == nil {
		r.begin, r.line = r.look, r.look
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
	return r.buf[r.look:r.end], nil
}

// Next returns the next block in e. The error is io.EOF after the last; a stream that
// ends inside a block gives that rest, without its missing line ends, with a nil error
// first. Other errors are the source's, idle's or ErrTooLong. After a source's error that says
// Timeout, Next may be called again and goes on where it was.
func (r *Reader) Next(e *Event) error {
	if !r.open {
		r.open, r.begin, r.line, r.some = true, r.look, r.look, false
	}
	for {
		if n := r.scan(); n > 0 {
			r.open = false
			err := r.parse(e, r.buf[r.begin:n])
			e.Whole = true
			return err
		}
		if r.err != nil {
			if r.err == io.EOF && r.begin < r.end {
				r.open, r.look = false, r.end
				err := r.parse(e, r.buf[r.begin:r.end])
				e.Whole = string(e.Raw) == "\n" // of the CR LF that ended the block before
				return err
			}
			return r.err
		}
		if err := r.fill(); err != nil {
			return err
		}
	}
}

// scan looks for the end of the block and returns it, or 0.
func (r *Reader) scan() int {
	if r.cr && r.look < r.end {
		r.cr = false
		if r.buf[r.look] == '\n' {
			r.look++
			r.line = r.look
		}
	}
	for r.look < r.end {
		i := r.lineEnd(r.buf[r.look:r.end])
		if i < 0 {
			r.look = r.end
			return 0
		}
		at := r.look + i
		line := r.buf[r.line:at]
		r.look = at + 1
		if r.buf[at] == '\r' {
			switch {
			case r.look < r.end && r.buf[r.look] == '\n':
				r.look++
			case r.look == r.end:
				r.cr = true // whether a LF follows cannot be waited for
			}
		}
		r.line = r.look
		if len(line) == 0 {
			return r.look
		}
		if line[0] != ':' {
			r.some = true
		} else if !r.some {
			return r.look // a comment between events travels alone, at once
		}
		if r.cr {
			return 0
		}
	}
	return 0
}

// fill reads more.
func (r *Reader) fill() error {
	r.makeRoom()
	if r.end-r.begin >= r.max {
		return ErrTooLong
	}
	if r.end == len(r.buf) || r.filled && len(r.buf) < fastRead {
		if err := r.grow(); err != nil {
			return err
		}
	}
	if r.idle != nil && !r.src.Ready() {
		if err := r.idle(); err != nil {
			return err
		}
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.returns = r.returns || bytes.IndexByte(r.buf[r.end:r.end+n], '\r') >= 0
	r.end += n
	r.filled = r.end == len(r.buf)
	if n == 0 && isTimeout(err) {
		return err
	}
	r.err = err
	return nil
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// grow doubles the buffer.
func (r *Reader) grow() error {
	size := max(2*len(r.buf), firstRead)
	if r.filled {
		size = max(size, fastRead)
	}
	size = min(size, r.max)
	if !r.holds(r.Size() + size) {
		return ErrNoRoom
	}
	bigger := make([]byte, size)
	copy(bigger, r.buf[:r.end])
	r.buf = bigger
	r.holds(r.Size())
	return nil
}

// makeRoom moves what is in the buffer to its front where nothing else fits, and lets large buffers
// go that an event before has needed.
func (r *Reader) makeRoom() {
	n := r.end - r.begin
	large := r.Size() > keepSize && n <= fastRead/2
	if !large && n > 0 && r.end < len(r.buf) {
		return
	}
	to := r.buf
	if large {
		to, r.join = make([]byte, fastRead), nil
	}
	copy(to, r.buf[r.begin:r.end])
	r.buf = to
	r.line -= r.begin
	r.look -= r.begin
	r.begin, r.end = 0, n
	if large {
		r.holds(r.Size())
	}
}

func (r *Reader) holds(bytes int) bool { return r.hold == nil || r.hold(bytes) }

var byteOrderMark = []byte("\xEF\xBB\xBF")

// parse fills e from the block raw.
func (r *Reader) parse(e *Event, raw []byte) error {
	*e = Event{Raw: raw, DataAt: -1}
	at, fields := 0, 0
	if r.first {
		r.first = false
		if bytes.HasPrefix(raw, byteOrderMark) {
			at = len(byteOrderMark)
		}
	}
	for at < len(raw) {
		line := raw[at:]
		next := len(raw)
		if i := r.lineEnd(line); i >= 0 {
			line, next = line[:i], at+i+1
		}
		name, value, _ := bytes.Cut(line, colon)
		if len(value) > 0 && value[0] == ' ' {
			value = value[1:]
		}
		switch string(name) {
		case "event":
			e.Name = value
		case "data":
			fields++
			if fields == 1 {
				e.Data, e.DataAt = value, at+len(line)-len(value)
				break
			}
			if fields == 2 {
				if err := r.startJoin(len(raw)); err != nil {
					return err
				}
				r.join = append(r.join, e.Data...)
			}
			r.join = append(append(r.join, '\n'), value...)
			e.Data = r.join
		}
		at = next
	}
	return nil
}

// startJoin empties join and has it take the data of an event of size bytes.
func (r *Reader) startJoin(size int) error {
	r.join = r.join[:0]
	if size <= cap(r.join) {
		return nil
	}
	r.join = nil
	if !r.holds(r.Size() + size) {
		return ErrNoRoom
	}
	r.join = make([]byte, 0, size)
	return nil
}

var colon = []byte{':'}

// firstWindow is how far a line's end is looked for at first, once lines may end in CR.
const firstWindow = 256

// lineEnd is where the first LF or CR of b stands, -1 without one. Where both may come, neither is
// searched for much farther than the other is: else each of many lines that end in one of them would
// cost a search through all that follow.
func (r *Reader) lineEnd(b []byte) int {
	if !r.returns {
		return bytes.IndexByte(b, '\n')
	}
	for from, size := 0, firstWindow; from < len(b); from, size = from+size, 2*size {
		window := b[from:min(len(b), from+size)]
		end := bytes.IndexByte(window, '\n')
		if end >= 0 {
			window = window[:end]
		}
		if cr := bytes.IndexByte(window, '\r'); cr >= 0 {
			end = cr
		}
		if end >= 0 {
			return from + end
		}
	}
	return -1
}
