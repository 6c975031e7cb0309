package pool

import (
	"bytes"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
)

// dechunk decodes body, read in pieces of the given size.
func dechunk(body string, piece int) (got []byte, c chunks, err error) {
	for !c.ended && len(body) > 0 {
		p := []byte(body[:min(piece, len(body))])
		body = body[len(p):]
		n, err := c.decode(p)
		got = append(got, p[:n]...)
		if err != nil {
			return got, c, err
		}
	}
	return got, c, nil
}

func TestChunks(t *testing.T) {
	for _, c := range []struct {
		body, want   string
		ended, clean bool
	}{
		{"0\r\n\r\n", "", true, true},
		{"3\r\nabc\r\n0\r\n\r\n", "abc", true, true},
		{"3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n000\r\n\r\n", "abc0123456789", true, true},
		{"3 \r\nabc\r\n1\r\nd\r\n0\r\n\r\n", "abcd", true, true},
		{"5 ;a=b\r\nhello\r\n0\t; c\r\n\r\n", "hello", true, true},
		{"1\r\na\r\n0\r\n", "a", true, false},
		{"1\r\na\r\n0\r\nTrailer: x\r\n\r\n", "a", true, false},
		{"1\r\na\r\n0\r\n\r\nunasked", "a", true, false},
		{"5\r\nab", "ab", false, false},
	} {
		got, state, err := dechunk(c.body, len(c.body))
		if err != nil || string(got) != c.want || state.ended != c.ended || state.clean != c.clean {
			t.Errorf("%q: %q, %+v, %v", c.body, got, state, err)
		}
		for piece := 1; piece < len(c.body); piece++ {
			if got, state, err := dechunk(c.body, piece); err != nil || string(got) != c.want || state.ended != c.ended {
				t.Errorf("%q in pieces of %d: %q, %+v, %v", c.body, piece, got, state, err)
			}
		}
	}
	for _, body := range []string{"\r\n", "x\r\n", "-1\r\n", "3\r\nabcd\r\n", "3\r\nabc\n0\r\n\r\n", "1\na\r\n", "1;x\na\r\n", "1\rx", "3\r\nabc\rx", "ffffffffffffffffff\r\n", "00000000000000000\r\n", ";\r\n", "3x\r\n", "1" + strings.Repeat(" ", longestSizeLine)} {
		if got, _, err := dechunk(body, len(body)); err == nil {
			t.Errorf("%q is taken: %q", body, got)
		}
	}
}

// TestFramingIsBounded: small chunks pass, padded ones too, and a body that is nearly all extensions
// does not, however its lines are.
func TestFramingIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		chunk string
		want  error
	}{
		"one byte each":          {"1\r\nx\r\n", nil},
		"padded sizes":           {"00000001\r\nx\r\n", nil},
		"signed":                 {"400;chunk-signature=" + strings.Repeat("5", 64) + "\r\n" + strings.Repeat("x", 1024) + "\r\n", nil},
		"extensions":             {"1;" + strings.Repeat("e", 100) + "\r\nx\r\n", errFraming},
		"spaces behind the size": {"1" + strings.Repeat(" ", 100) + "\r\nx\r\n", errFraming},
	} {
		if _, _, err := dechunk(strings.Repeat(c.chunk, 50_000), 4096); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzChunks holds decode against the standard library's reader: what that reads to its end, in
// whatever pieces, decode gives the same bytes for.
func FuzzChunks(f *testing.F) {
	f.Add("3\r\nabc\r\n0\r\n\r\n", 2)
	f.Add("a;b=c\r\n0123456789\r\n1\r\n1\r\n0\r\n\r\n", 7)
	f.Add("3\r\nab", 1)
	f.Fuzz(func(t *testing.T, body string, piece int) {
		if len(body) > framingFree {
			return // the library bounds the framing in another way
		}
		want, wantErr := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(body)))
		got, c, err := dechunk(body, max(1, min(piece, 1<<20)))
		if wantErr == nil && (err != nil || !c.ended) {
			t.Fatalf("%q: the library takes it, decode does not: %v", body, err)
		}
		if strings.Contains(body, " ;") || strings.Contains(body, "\t;") {
			return // which the library refuses, and the RFC allows
		}
		if c.ended && err == nil && (wantErr != nil || !bytes.Equal(got, want)) {
			t.Fatalf("%q: %q, the library has %q, %v", body, got, want, wantErr)
		}
	})
}
