package proxy

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"iter"

	"sluice/pool"
	"sluice/sse"
)

// inspection reads along with an answer that is neither JSON held as it is nor a stream: one that passes
// as it comes, and one that is compressed though identity was asked for. It takes the usage and a stream's
// end from a copy. The bytes themselves are the client's as they came.
//
// Whoever has the bytes hands them over with see, and gets back control when they are read: the reading
// is a coroutine, since decoders and sse.Reader ask for bytes, and must not wait for them.
type inspection struct {
	r       *request
	decode  func(io.Reader) (io.Reader, error)
	resume  func() (struct{}, bool)
	stop    func()
	yield   func(struct{}) bool
	arrived []byte // and not yet read
	ended   bool   // nothing more will
	wire    int64  // bytes that have come
	text    int64  // bytes that they were decoded to
	held    int64  // in limits.memory

	done      bool
	err       error // of the reading, nil at the end of what has come whole
	beginning beginning
	skim      skim
	ends      bool // a stream has its terminator
}

// What is decoded is bounded, for a few bytes may decode to a thousand times as many (deflate), which cost
// time: gzip takes a chat's answer to a tenth, and its stream to a thirtieth.
const (
	freeText     = 256 << 10
	textPerByte  = 64
	mostText     = 256 << 20
	mostEvent    = 4 << 20
	decoderSpace = 64 << 10 // what a decoder has for itself
)

var (
	errStopped  = errors.New("the answer has not come whole")
	errInflated = errors.New("the answer decodes to far more bytes than it has")
	errUnended  = &pool.Error{Cause: pool.StreamBroken, Err: errors.New("the encoded stream ended without a terminator")}
)

// isEncoded reports whether the answer has a Content-Encoding that changes it.
func (r *request) isEncoded() bool {
	coding := r.exchange.Response.ContentEncoding()
	return len(coding) > 0 && !bytes.EqualFold(coding, identity)
}

// inspect begins the inspection of a 2xx that begins so; nil if there is nothing in it to read. Brotli and
// Zstandard are not decoded: their windows take megabytes for each answer, and no upstream is asked for them.
func (r *request) inspect(begin []byte) *inspection {
	i := &inspection{r: r}
	switch coding := r.exchange.Response.ContentEncoding(); {
	case !r.isEncoded():
		if beginningOf(begin) == somethingElse {
			return nil
		}
	case bytes.EqualFold(coding, gzipCoding), bytes.EqualFold(coding, xGzipCoding):
		i.decode = gunzip
	case bytes.EqualFold(coding, deflateCoding):
		i.decode = inflate
	default:
		return nil
	}
	if i.decode != nil && !i.hold(0) {
		return nil
	}
	i.resume, i.stop = iter.Pull(i.run)
	return i
}

var (
	gzipCoding    = []byte("gzip")
	xGzipCoding   = []byte("x-gzip") // RFC 9110, section 8.4.1.3
	deflateCoding = []byte("deflate")
)

func gunzip(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }

// inflate takes what deflate is (RFC 9110, section 8.4.1.2), and what some servers take it for, which is
// without zlib's two bytes of head (RFC 1950, section 2.2).
func inflate(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	head, err := b.Peek(2)
	if err != nil {
		return nil, err
	}
	if head[0]&15 == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}

// see reads what has come.
func (i *inspection) see(b []byte) {
	i.wire += int64(len(b))
	if !i.done && len(b) > 0 {
		i.arrived = b
		i.resume()
	}
}

// end reads to the end of an answer that has come whole. The error says that it is not.
func (i *inspection) end() error {
	if !i.done {
		i.ended = true
		i.resume()
	}
	if i.decode != nil && i.err == nil && i.beginning == anEvent && !i.ends && i.r.route.terminated {
		return errUnended
	}
	return nil
}

// whole reports whether the answer was read to its end.
func (i *inspection) whole() bool { return i.done && i.err == nil }

func (i *inspection) close() {
	i.stop()
	i.r.proxy.memory.Give(i.held)
	i.held = 0
}

func (i *inspection) run(yield func(struct{}) bool) {
	i.yield = yield
	i.err = i.read()
	i.done = true
}

func (i *inspection) read() (err error) {
	var from io.Reader = arrivals{i}
	if i.decode != nil {
		if from, err = i.decode(from); err != nil {
			return err
		}
	}
	from = decoded{i, from}
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		switch i.beginning = beginningOf(buf[:n]); i.beginning {
		case notBegun:
		case anObject:
			return i.readObject(buf, n, from)
		case anEvent:
			return i.readEvents(io.MultiReader(bytes.NewReader(buf[:n]), from))
		default:
			return errNotRead
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

var errNotRead = errors.New("the answer is nothing that has a usage")

// readObject reads JSON, of which buf has the first n bytes.
func (i *inspection) readObject(buf []byte, n int, from io.Reader) (err error) {
	for {
		i.skim.write(buf[:n], func(t *top) { i.r.tokens.usage.read(t.usage) })
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		n, err = from.Read(buf)
	}
}

func (i *inspection) readEvents(from io.Reader) error {
	var reader sse.Reader
	reader.Reset(source{from}, min(mostEvent, int(i.r.snapshot.config.Limits.Response)), nil, i.hold)
	t := &i.r.tokens
	for e := new(sse.Event); ; {
		if err := reader.Next(e); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if !e.HasData() {
			continue
		}
		found := look(e)
		i.ends = i.ends || found.ends
		if found.usage {
			t.usage.readEvent(e.Data)
		}
		if t.limited {
			t.count(e.Data, i.r.route)
		}
	}
}

// hold has the inspection count in limits.memory for n bytes and its decoder.
func (i *inspection) hold(n int) bool {
	more := int64(n) + decoderSpace - i.held
	if more > 0 && !i.r.proxy.memory.Take(more) {
		return false
	}
	i.r.proxy.memory.Give(max(0, -more))
	i.held += more
	return true
}

// arrivals are the bytes of an answer as they come.
type arrivals struct{ i *inspection }

func (a arrivals) Read(b []byte) (int, error) {
	for len(a.i.arrived) == 0 {
		if a.i.ended {
			return 0, io.EOF
		}
		if !a.i.yield(struct{}{}) {
			return 0, errStopped
		}
	}
	n := copy(b, a.i.arrived)
	a.i.arrived = a.i.arrived[n:]
	return n, nil
}

// decoded counts the bytes of the text, and ends it where they are too many for what has come.
type decoded struct {
	i    *inspection
	text io.Reader
}

func (d decoded) Read(b []byte) (int, error) {
	n, err := d.text.Read(b)
	i := d.i
	i.text += int64(n)
	if i.decode != nil && i.text > min(mostText, freeText+textPerByte*i.wire) {
		return 0, errInflated
	}
	return n, err
}

// source is a stream of text that never has sse.Reader call back before a read.
type source struct{ io.Reader }

func (source) Ready() bool { return true }
