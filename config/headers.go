package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// ownHeaders are put in by the gateway itself; a configured value would break framing
// or routing.
var ownHeaders = []string{"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "accept-encoding", "expect", "x-request-id"}

// neverPass are the client's headers that headers_pass cannot name, besides ownHeaders: credentials, and
// what describes a body that the gateway has read and rewritten.
var neverPass = []string{"authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key", "x-portkey-api-key", "x-portkey-virtual-key",
	"content-type", "content-encoding"}

// checkHeaders checks what is said of the headers of requests to u.
func (d *decoder) checkHeaders(path string, u *Upstream) {
	switch {
	case !headerName.MatchString(u.AuthHeader):
		d.find(path+".auth_header", "must be a header's name alone; the key goes into api_key") // not shown: the key may be in it
	case slices.Contains(ownHeaders, strings.ToLower(u.AuthHeader)):
		d.find(path+".auth_header", "%s is the gateway's own and cannot be set", u.AuthHeader)
	}
	seen := map[string]bool{}
	for _, h := range slices.Sorted(maps.Keys(u.Headers)) {
		switch {
		case !headerName.MatchString(h):
			d.find(path+".headers."+h, "is not a header name")
		case slices.Contains(ownHeaders, strings.ToLower(h)):
			d.find(path+".headers."+h, "is the gateway's own and cannot be set")
		case strings.ContainsFunc(u.Headers[h].Reveal(), control):
			d.find(path+".headers."+h, "must not have control characters")
		case seen[strings.ToLower(h)]:
			d.find(path+".headers."+h, "is there twice, in different case")
		}
		seen[strings.ToLower(h)] = true
	}
	for i, h := range u.HeadersPass {
		d.checkPassed(path+".headers_pass["+strconv.Itoa(i)+"]", h)
	}
}

func (d *decoder) checkPassed(path, header string) {
	lower := strings.ReplaceAll(strings.ToLower(header), "_", "-")
	switch {
	case d.refused(path):
	case !headerName.MatchString(header):
		d.find(path, "must be a header's name")
	case slices.Contains(ownHeaders, lower), slices.Contains(neverPass, lower), strings.HasPrefix(lower, "proxy-"):
		d.find(path, "the client's %s cannot be let through: it is a credential, or the gateway's own", d.shown(path, header))
	}
}
