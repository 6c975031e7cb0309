package proxy

import (
	"bytes"
	"net"
	"net/netip"
)

// maxForwarded is how many entries of X-Forwarded-For are looked at. Anybody may put entries on its left.
const maxForwarded = 32

// readClientAddr finds the address of a client whose connection comes from a trusted proxy: the rightmost in
// X-Forwarded-For that is not a trusted proxy's itself. Each proxy appends the address that its own connection
// came from, so that everything left of the first that is not trusted is hearsay.
func (r *request) readClientAddr() {
	trusted := r.snapshot.config.Trusted()
	if len(trusted) == 0 {
		return
	}
	peer, ok := r.conn.RemoteAddr().(*net.TCPAddr)
	if !ok || !contains(trusted, peer.AddrPort().Addr().Unmap()) {
		return
	}
	lines := r.ctx.Request.Header.PeekAll("X-Forwarded-For")
	looked := 0
	for i := len(lines) - 1; i >= 0; i-- {
		for line, more := lines[i], true; more; {
			var entry []byte
			line, entry, more = cutLast(line)
			addr, ok := parseForwarded(entry)
			if !ok {
				return
			}
			r.from = addr
			if looked++; looked == maxForwarded || !contains(trusted, addr) {
				return
			}
		}
	}
}

// cutLast is bytes.Cut at the last comma, with what follows it second.
func cutLast(list []byte) (before, last []byte, more bool) {
	i := bytes.LastIndexByte(list, ',')
	return list[:max(i, 0)], list[i+1:], i >= 0
}

// parseForwarded reads an entry of X-Forwarded-For: an address, as some proxies write it with a port, or in
// brackets.
func parseForwarded(entry []byte) (addr netip.Addr, ok bool) {
	text := borrowString(bytes.TrimSpace(entry))
	if n := len(text); n > 2 && text[0] == '[' && text[n-1] == ']' {
		text = text[1 : n-1]
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		var both netip.AddrPort
		both, err = netip.ParseAddrPort(text)
		addr = both.Addr()
	}
	return addr.Unmap().WithZone(""), err == nil
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
