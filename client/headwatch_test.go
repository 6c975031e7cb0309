package client

import (
	"strings"
	"testing"
)

func TestHeadWatchSplitAnywhere(t *testing.T) {
	for text, ok := range map[string]bool{
		"\r\nPOST / HTTP/1.1\r\nA: b\r\n\r\n{\n\n}": true, "GET / HTTP/1.1\r\n\r\n\n": true, "GET / HTTP/3\r\n\r\n": true,
		"GET / HTTP/1.1\nA: b\r\n\r\n": false, "GET / HTTP/1.1\r\nA: b\n\r\n": false, "\nGET / HTTP/1.1\r\n\r\n": false, "GET / HTTP/1.1\r\nA: b\r\n\n": false,
	} {
		for i := range len(text) {
			w := headWatch{state: watchIdle}
			got := w.look([]byte(text[:i]))
			if got && w.state != watchOff {
				got = w.look([]byte(text[i:]))
			}
			if version := strings.Contains(text, "HTTP/3"); w.badVersion != version {
				t.Errorf("%q at %d: %v", text, i, w.badVersion)
			}
			if got != ok || w.bareLF == ok || w.state != watchOff {
				t.Errorf("%q at %d: %v %+v", text, i, got, w)
			}
		}
	}
}
