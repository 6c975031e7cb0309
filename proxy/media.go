package proxy

import "bytes"

// checkMedia refuses a body that its Content-Type or Content-Encoding says is no JSON in UTF-8. A body
// is read as that, and goes upstream as application/json: an upstream that believed another charset, or
// took it for a form, could read another model in it. Many clients name no type or the wrong one (curl
// says that its -d is a form), so only what cannot be JSON in UTF-8 is refused.
func (r *request) checkMedia() *failure {
	for lines := r.ctx.Request.Header.RawHeaders(); len(lines) > 0; {
		var line []byte
		line, lines, _ = nextLine(lines)
		name, value := splitHeader(line)
		switch {
		case bytes.EqualFold(name, headerContentType):
			if f := checkType(value); f != nil {
				return f
			}
		case bytes.EqualFold(name, headerContentEncoding) && len(value) > 0 && !bytes.EqualFold(value, identity):
			return refusal(unsupportedMedia, "", "the body must be sent without Content-Encoding, not as %s", shown(value))
		}
	}
	return nil
}

var (
	headerContentEncoding = []byte("Content-Encoding")
	identity              = []byte("identity")
	multipart             = []byte("multipart/")
	charset               = []byte("charset")
)

func checkType(contentType []byte) *failure {
	typ, parameters, _ := bytes.Cut(contentType, semicolon)
	if typ = bytes.TrimSpace(typ); len(typ) >= len(multipart) && bytes.EqualFold(typ[:len(multipart)], multipart) {
		return refusal(unsupportedMedia, "", "the body must be a JSON object, not %s; send Content-Type: application/json", shown(typ))
	}
	for len(parameters) > 0 {
		var parameter []byte
		parameter, parameters, _ = bytes.Cut(parameters, semicolon)
		name, value, _ := bytes.Cut(parameter, equals)
		name, value = bytes.TrimSpace(name), bytes.Trim(value, " \t\"'")
		// charset*=… (RFC 8187) is a charset too.
		if len(name) >= len(charset) && bytes.EqualFold(name[:len(charset)], charset) && (len(name) > len(charset) || !readable(value)) {
			return refusal(unsupportedMedia, "", "the body must be in UTF-8, not in the charset %s", shown(value))
		}
	}
	return nil
}

var (
	semicolon = []byte{';'}
	equals    = []byte{'='}
)

// readable reports whether text in charset is UTF-8 as well.
func readable(charset []byte) bool {
	for _, known := range [...]string{"utf-8", "utf8", "us-ascii", "ascii"} {
		if bytes.EqualFold(charset, borrowBytes(known)) {
			return true
		}
	}
	return false
}
