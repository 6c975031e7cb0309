package proxy

import "bytes"

// upstreamIDHeaders are the headers in which providers name a request in their own logs, in the spelling
// that fasthttp reads; the first that has a usable value counts. Anthropic sends the first, AWS and Azure
// the next two, OpenAI and most others the last, which proxies in front of a provider add too.
var upstreamIDHeaders = [...][]byte{
	[]byte("Request-Id"), []byte("X-Amzn-Requestid"), []byte("Apim-Request-Id"), []byte("X-Request-Id"),
}

// maxUpstreamID bounds an id; a longer one is no id.
const maxUpstreamID = 128

// readUpstreamID keeps the id that the newest attempt's answer has. An upstream that returns the id it was
// sent has none of its own in that header.
func (r *request) readUpstreamID() {
	for _, name := range upstreamIDHeaders {
		id := r.exchange.Response.PeekCanonical(name)
		if len(id) > 0 && len(id) <= maxUpstreamID && visible(id) && !bytes.Equal(id, r.id) {
			r.upstreamID = append(r.upstreamID[:0], id...)
			return
		}
	}
}
