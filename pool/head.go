package pool

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/valyala/fasthttp"
)

// malformed is why an upstream's bytes are refused. It never holds any of them: an error is logged
// and shown, and an upstream may put a secret anywhere.
type malformed string

func (m malformed) Error() string { return string(m) }

const (
	notHTTP    malformed = "the answer's head is not HTTP/1.1 or HTTP/1.0"
	badStatus  malformed = "the answer's status is not a number from 100 to 599"
	bareFeed   malformed = "a line of the answer's head ends in LF without CR"
	badLine    malformed = "a line of the answer's head is no header"
	foldedLine malformed = "a line of the answer's head begins with a space: it continues a header, which HTTP/1.1 forbids"
	spacedName malformed = "a header's name in the answer has a space in it or behind it"
	badHeader  malformed = "a header of the answer has a forbidden byte, an invalid length or an unsupported transfer coding"
	twoLengths malformed = "the answer has both Content-Length and Transfer-Encoding"
	oldChunked malformed = "the answer has a Transfer-Encoding, but is HTTP/1.0"
	halfHead   malformed = "the connection ended inside the answer's head"
	longHead   malformed = "the answer's head is longer than limits.upstream_head"
	manyHeads  malformed = "too many heads of status 1xx precede the answer's"
	// unasked bytes are the answer to nothing, and so may be all that follow.
	unasked malformed = "bytes came before a request was sent"
)

// headScan checks a head (RFC 9112, sections 4 and 5) as it arrives, each byte once. It refuses at
// the end of a line what fasthttp's parser would wait for or let pass, and leaves to that what it
// refuses itself.
type headScan struct {
	seen    int // bytes that were searched for the end of a line
	line    int // where the current line begins
	old     bool
	length  bool
	chunked bool
}

const httpOne = "HTTP/1."

// scan looks at b, which begins with all that was looked at before. It returns the length of the
// head, 0 if its end has not come yet.
func (s *headScan) scan(b []byte) (int, error) {
	if n := min(len(b), len(httpOne)); s.line == 0 && string(b[:n]) != httpOne[:n] {
		return 0, notHTTP
	}
	for {
		i := bytes.IndexByte(b[s.seen:], '\n')
		if i < 0 {
			s.seen = len(b)
			return 0, nil
		}
		begin, end := s.line, s.seen+i
		s.seen, s.line = end+1, end+1
		if b[end-1] != '\r' {
			return 0, bareFeed
		}
		var err error
		switch line := b[begin : end-1]; {
		case begin == 0:
			err = s.status(line)
		case len(line) == 0:
			return s.line, s.framing()
		default:
			err = s.header(line)
		}
		if err != nil {
			return 0, err
		}
	}
}

// status checks the first line: a version, a status of three digits, and a reason or none.
func (s *headScan) status(line []byte) error {
	const before = len(httpOne + "1 ")
	if len(line) < before || line[before-1] != ' ' || line[before-2] != '1' && line[before-2] != '0' {
		return notHTTP
	}
	s.old = line[before-2] == '0'
	code := line[before:]
	if len(code) > 3 && code[3] == ' ' {
		code = code[:3]
	}
	if len(code) != 3 || code[0] < '1' || code[0] > '5' || !digit(code[1]) || !digit(code[2]) {
		return badStatus
	}
	return nil
}

func digit(b byte) bool { return '0' <= b && b <= '9' }

func (s *headScan) header(line []byte) error {
	if line[0] == ' ' || line[0] == '\t' {
		return foldedLine
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return badLine
	}
	name := line[:colon]
	switch {
	case bytes.ContainsAny(name, " \t"):
		return spacedName
	case isName(name, fasthttp.HeaderContentLength):
		s.length = true
	case isName(name, fasthttp.HeaderTransferEncoding):
		s.chunked = true // or it is refused
	}
	return nil
}

// isName compares a header's name, in any case.
func isName(name []byte, header string) bool {
	return len(name) == len(header) && bytes.EqualFold(name, []byte(header))
}

// framing checks that the head says in one way how the body ends.
func (s *headScan) framing() error {
	switch {
	case s.chunked && s.length:
		return twoLengths
	case s.chunked && s.old:
		return oldChunked
	}
	return nil
}

// awaitHead waits until r holds a whole head of at most limit bytes. r reads from conn. A reader
// that is too small for the head is replaced by a larger one, which is returned.
func awaitHead(r *bufio.Reader, conn io.Reader, limit int) (*bufio.Reader, int, error) {
	var s headScan
	for wanted := 1; ; {
		_, err := r.Peek(wanted)
		b, _ := r.Peek(r.Buffered())
		n, refused := s.scan(b)
		switch {
		case refused != nil:
			return r, 0, refused
		case n > limit, n == 0 && len(b) >= limit:
			return r, 0, longHead
		case n > 0:
			return r, n, nil
		case err == bufio.ErrBufferFull:
			r = larger(r, conn, limit)
		case err != nil && isTimeout(err):
			return r, 0, fmt.Errorf("no whole head of an answer: %w", err)
		case err != nil:
			return r, 0, halfHead
		}
		wanted = len(b) + 1
	}
}

// larger is a reader with twice the buffer, up to limit, that begins with what r holds.
func larger(r *bufio.Reader, conn io.Reader, limit int) *bufio.Reader {
	b, _ := r.Peek(r.Buffered())
	return bufio.NewReaderSize(io.MultiReader(bytes.NewReader(bytes.Clone(b)), conn), min(2*r.Size(), limit))
}

// parseHead parses the head in r's first n bytes, which awaitHead has checked, and takes it off.
func parseHead(h *fasthttp.ResponseHeader, r *bufio.Reader, n int) error {
	held := r.Buffered()
	// The library's error quotes the head.
	if err := h.Read(r); err != nil || held-r.Buffered() != n {
		return badHeader
	}
	return nil
}
