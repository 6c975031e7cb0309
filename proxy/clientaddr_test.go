package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// lastLine is the newest of the last errors.
func (g *gateway) lastLine() (line map[string]any) {
	g.t.Helper()
	list := g.lastErrors()
	if len(list) == 0 {
		g.t.Fatal("there is no error")
	}
	if err := json.Unmarshal(list[0], &line); err != nil {
		g.t.Fatal(err)
	}
	return line
}

// TestClientAddress: what X-Forwarded-For says counts as far as trusted proxies have said it.
func TestClientAddress(t *testing.T) {
	const own = "the connection's"
	many := strings.Repeat("10.0.0.1, ", 40)
	for _, test := range []struct{ name, trusted, lines, want string }{
		{"nobody is trusted", "[]", "X-Forwarded-For: 203.0.113.9\r\n", own},
		{"another is", "[192.0.2.1]", "X-Forwarded-For: 203.0.113.9\r\n", own},
		{"one proxy", "[127.0.0.0/8]", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"},
		{"no header", "[127.0.0.0/8]", "", own},
		{"an empty one", "[127.0.0.0/8]", "X-Forwarded-For:\r\n", own},
		{"forged on the left", "[127.0.0.0/8]", "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\n", "203.0.113.9"},
		{"two proxies", "[127.0.0.1, 10.0.0.0/8]", "X-Forwarded-For: 198.51.100.1,203.0.113.9 ,10.0.0.1\r\n", "203.0.113.9"},
		{"two lines", "[127.0.0.1, 10.0.0.0/8]", "X-Forwarded-For: 203.0.113.9\r\nx-forwarded-for: 10.0.0.1\r\n", "203.0.113.9"},
		{"all trusted", "[127.0.0.1, 10.0.0.0/8]", "X-Forwarded-For: 10.0.0.2, 10.0.0.1\r\n", "10.0.0.2"},
		{"with a port", "[127.0.0.1]", "X-Forwarded-For: 203.0.113.9:4711\r\n", "203.0.113.9"},
		{"IPv6", "[127.0.0.1, 'fd00::/8']", "X-Forwarded-For: 2001:DB8::1, fd00::1\r\n", "2001:db8::1"},
		{"IPv6 in brackets", "[127.0.0.1, 'fd00::/8']", "X-Forwarded-For: [2001:db8::1], [fd00::1]:443\r\n", "2001:db8::1"},
		{"IPv4 as IPv6", "[127.0.0.1, 10.0.0.0/8]", "X-Forwarded-For: ::ffff:203.0.113.9, ::ffff:10.0.0.1\r\n", "203.0.113.9"},
		{"a zone", "[127.0.0.1]", "X-Forwarded-For: fe80::1%eth0\r\n", "fe80::1"},
		{"no address", "[127.0.0.1]", "X-Forwarded-For: 203.0.113.9, unknown\r\n", own},
		{"no address behind one", "[127.0.0.1, 10.0.0.0/8]", "X-Forwarded-For: 203.0.113.9, _hidden, 10.0.0.1\r\n", "10.0.0.1"},
		{"too many", "[127.0.0.1, 10.0.0.0/8]", "X-Forwarded-For: 203.0.113.9, 10.0.0.9, " + many[:31*10-2] + "\r\n", "10.0.0.9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := startTCP(t, oneModel+"trusted_proxies: "+test.trusted+"\n", "127.0.0.1:1")
			g.raw(g.rawPost("/v1/chat/completions", test.lines, "{"))
			got, _ := g.lastLine()["client"].(string)
			if host, _, err := net.SplitHostPort(got); err == nil && host == "127.0.0.1" {
				got = own
			}
			if got != test.want {
				t.Errorf("the client is %q, want %q", got, test.want)
			}
		})
	}
}

// TestRefusedLine: what was refused is logged with its method and path too, but not with its query, where a
// key may be.
func TestRefusedLine(t *testing.T) {
	long := strings.Repeat("ä", 300)
	for _, test := range []struct{ name, line, method, path string }{
		{"no such path", "GET /v1/nothing?key=sesame", "GET", "/v1/nothing"},
		{"another method", "PUT /v1/chat/completions/", "PUT", "/v1/chat/completions/"},
		{"a bad path", "GET /v1/../x%2fy", "GET", "/v1/../x%2fy"},
		{"no key", "POST /v1/messages", "POST", "/v1/messages"},
		{"a long path", "GET /" + long, "GET", "/" + long[:2*199]},
		{"no UTF-8", "GET /\xff\"\\", "GET", "/\ufffd\"\\"},
		{"a whole URL", "GET http://user:sesame@x/v1/nothing?key=sesame", "GET", "/v1/nothing"},
		{"an odd method", "M-SEARCH /v1/models", "M-SEARCH", "/v1/models"},
		{"a long method", strings.Repeat("M", 300) + " /v1/models", strings.Repeat("M", 200), "/v1/models"},
		{"no head that can be read", "nonsense", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := start(t, oneModel, "127.0.0.1:1")
			g.raw(test.line + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			line := g.lastLine()
			path, _ := line["path"].(string)
			method, _ := line["method"].(string)
			if method != test.method || path != test.path || strings.Contains(fmt.Sprint(line), "sesame") {
				t.Errorf("%v", line)
			}
		})
	}
}
