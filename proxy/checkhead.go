package proxy

import "bytes"

// checkHead refuses a head that the server has taken but that others may read differently. It looks at
// the header lines as they came.
func (r *request) checkHead() *failure {
	headers := r.ctx.Request.Header.RawHeaders()
	cookies := 0
	for len(headers) > 0 {
		var name, value []byte
		name, value, headers = nextHeader(headers)
		switch len(name) {
		case len(headerConnection):
			if bytes.EqualFold(name, headerConnection) && !r.hops.add(value) {
				return refusal(invalidRequest, "", "the Connection headers must have at most %d names", maxHops)
			}
		case len(headerCookie):
			if bytes.EqualFold(name, headerCookie) {
				cookies++
			}
		}
	}
	if cookies > maxCookies {
		return refusal(invalidRequest, "", "there must be at most %d Cookie headers; a client sends its cookies in one", maxCookies)
	}
	return nil
}

// maxCookies bounds the Cookie headers, which take the server a time that grows with their square.
const maxCookies = 32

var (
	headerConnection = []byte("Connection")
	headerCookie     = []byte("Cookie")
)

// nextHeader cuts the first line off a head's header lines.
func nextHeader(headers []byte) (name, value, rest []byte) {
	line := headers
	if end := bytes.IndexByte(headers, '\n'); end >= 0 {
		line, rest = headers[:end], headers[end+1:]
	}
	name, value, _ = bytes.Cut(line, colon)
	return name, bytes.TrimSpace(value), rest
}
