package proxy

import (
	"bytes"

	"sluice/client"
)

// checkHead refuses a head that fasthttp has taken but that others read differently, or not at all:
// whatever is in front of the gateway, or behind it, may see another request in it. It looks at the lines
// as they came. Their names' other characters have been checked.
func (r *request) checkHead() *failure {
	h := &r.ctx.Request.Header
	if !client.Spoken(h.Protocol()) {
		return refuseVersion()
	}
	if r.conn.BareLF() {
		return refuseBareLF()
	}
	cookies, length, chunked := 0, false, false
	for lines := h.RawHeaders(); len(lines) > 0; {
		var line []byte
		var ok bool
		if line, lines, ok = nextLine(lines); !ok {
			return refuseBareLF()
		}
		if len(line) == 0 {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			return refusal(invalidRequest, "", "a header goes on in a second line, which begins with a space; send each header in one line")
		}
		name, value := splitHeader(line)
		if bytes.IndexByte(name, ' ') >= 0 {
			return refusal(invalidRequest, "", "the name of a header has a space in it")
		}
		switch len(name) {
		case len(headerCookie):
			if bytes.EqualFold(name, headerCookie) {
				cookies++
			}
		case len(headerConnection):
			if bytes.EqualFold(name, headerConnection) && !r.hops.add(value) {
				return refusal(invalidRequest, "", "the Connection headers must have at most %d names", maxHops)
			}
		case len(headerContentLength):
			length = length || bytes.EqualFold(name, headerContentLength)
		case len(headerTransferEncoding):
			if !bytes.EqualFold(name, headerTransferEncoding) {
				break
			}
			if !bytes.EqualFold(value, chunkedCoding) {
				return refusal(invalidRequest, "", "Transfer-Encoding must be chunked, or not there")
			}
			chunked = true
		}
	}
	if length && chunked {
		return refusal(invalidRequest, "", "Content-Length and Transfer-Encoding must not be sent together")
	}
	if cookies > maxCookies {
		return refusal(invalidRequest, "", "there must be at most %d Cookie headers; a client sends its cookies in one", maxCookies)
	}
	return nil
}

// maxCookies bounds the Cookie headers, which take the server a time that grows with their square.
const maxCookies = 32

var (
	headerCookie           = []byte("Cookie")
	headerConnection       = []byte("Connection")
	headerContentLength    = []byte("Content-Length")
	headerTransferEncoding = []byte("Transfer-Encoding")
	chunkedCoding          = []byte("chunked")
)

func refuseBareLF() *failure {
	return refusal(invalidRequest, "", "each line of the request's head must end in CR LF, not in LF alone")
}

func refuseVersion() *failure {
	return refusal(versionNotSupported, "", "only HTTP/1.1 and HTTP/1.0 are spoken here; over TLS, ALPN chooses HTTP/1.1")
}

// nextLine cuts the first of a head's header lines off. False if it does not end in CR LF. The line after
// the last is empty.
func nextLine(lines []byte) (line, rest []byte, ok bool) {
	line, rest, _ = bytes.Cut(lines, lineFeed)
	line, ok = bytes.CutSuffix(line, carriageReturn)
	return line, rest, ok
}

var (
	lineFeed       = []byte{'\n'}
	carriageReturn = []byte{'\r'}
)

func splitHeader(line []byte) (name, value []byte) {
	name, value, _ = bytes.Cut(line, colon)
	return name, bytes.TrimSpace(value)
}
