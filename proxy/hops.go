package proxy

import "bytes"

// maxHops is how many names the Connection headers of one message may have. Each header is compared with
// all of them.
const maxHops = 32

// hops are the names in a message's Connection headers: of headers that go no further. They are the
// message's own bytes.
type hops [][]byte

// add adds the names in value, which is one Connection header's. False if they are too many.
func (h *hops) add(value []byte) bool {
	if bytes.EqualFold(value, keepAlive) || bytes.EqualFold(value, closeToken) {
		return true // as in nearly all messages
	}
	for n := 0; len(value) > 0; n++ {
		var name []byte
		name, value, _ = bytes.Cut(value, comma)
		if name = bytes.TrimSpace(name); len(name) > 0 {
			*h = append(*h, name)
		}
		if n == maxHops || len(*h) > maxHops {
			return false
		}
	}
	return true
}

var (
	keepAlive  = []byte("keep-alive")
	closeToken = []byte("close")
)

// have reports whether name, in any case, is among them.
func (h hops) have(name []byte) bool {
	for _, hop := range h {
		if len(hop) == len(name) && bytes.EqualFold(hop, name) {
			return true
		}
	}
	return false
}

// clear forgets them and the message that they are of.
func (h *hops) clear() {
	clear((*h)[:cap(*h)])
	*h = (*h)[:0]
}
