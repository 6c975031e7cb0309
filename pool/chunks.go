package pool

import (
	"errors"
	"math"
)

// chunks takes the framing of a chunked body (RFC 9112, section 7.1) off what was read of it,
// in place, so that all chunks that have arrived together are given out together.
type chunks struct {
	expect expectation
	left   int // of the chunk's bytes, or its size as far as it has been read
	digits int // of the size
	line   int // bytes of the line with the size
	data   int64
	framed int64 // bytes that were no data
	ended  bool
	// clean: behind the last chunk came the empty line that ends the body, and nothing else.
	clean bool
}

// expectation is what comes next in the body.
type expectation uint8

const (
	expectSize      expectation = iota
	expectSpace                 // behind the size, up to the line's end
	expectExtension             // the same
	expectSizeFeed              // the LF of the line with the size
	expectData
	expectReturn // the CR behind the data
	expectFeed
)

// mostDigits is what a size of 64 bits takes; leading zeros count.
const mostDigits = 16

// longestSizeLine bounds a chunk's size with its extensions.
const longestSizeLine = 4 << 10

// An upstream may send chunks of one byte, and write the size of each with leading zeros, but not
// extensions (which nobody reads) without end.
const (
	framingFree    = 64 << 10
	framingPerByte = 16
)

var (
	errChunks  = errors.New("the answer's chunks are malformed")
	errFraming = errors.New("the answer's chunks have more framing and extensions than 64 KiB and 16 bytes for each byte of data")
)

// decode moves the bytes of the chunks in p to its front and returns how many there are.
func (c *chunks) decode(p []byte) (n int, err error) {
	for at := 0; at < len(p); {
		if c.expect == expectData {
			m := min(c.left, len(p)-at)
			copy(p[n:], p[at:at+m])
			n, at, c.left = n+m, at+m, c.left-m
			c.data += int64(m)
			if c.left == 0 {
				c.expect = expectReturn
			}
			continue
		}
		b := p[at]
		at++
		if !c.frame(b) {
			return n, errChunks
		}
		if c.framed++; c.framed > framingFree+framingPerByte*c.data {
			return n, errFraming
		}
		if c.ended {
			c.clean = string(p[at:]) == "\r\n"
			return n, nil
		}
	}
	return n, nil
}

// frame takes one byte that is not a chunk's. False is a byte that must not be there.
func (c *chunks) frame(b byte) bool {
	switch c.expect {
	case expectReturn:
		c.expect = expectFeed
		return b == '\r'
	case expectFeed:
		c.expect, c.left, c.digits, c.line = expectSize, 0, 0, 0
		return b == '\n'
	case expectSizeFeed:
		c.expect, c.ended = expectData, c.left == 0
		return b == '\n' && c.digits > 0
	}
	if c.line++; c.line > longestSizeLine || c.left > math.MaxInt>>5 {
		return false
	}
	if b == '\r' {
		c.expect = expectSizeFeed
		return true
	}
	space := b == ' ' || b == '\t'
	switch c.expect {
	case expectExtension:
		return b != '\n'
	case expectSpace:
		if b == ';' {
			c.expect = expectExtension
		}
		return space || b == ';'
	}
	if d := hexDigit(b); d >= 0 {
		c.digits++
		c.left = c.left<<4 | d
		return c.digits <= mostDigits
	}
	if space {
		c.expect = expectSpace
		return true
	}
	c.expect = expectExtension
	return b == ';'
}

func hexDigit(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'f':
		return int(b - 'a' + 10)
	case 'A' <= b && b <= 'F':
		return int(b - 'A' + 10)
	}
	return -1
}
