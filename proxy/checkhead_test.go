package proxy

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

// TestHeadsThatOthersReadDifferently are refused at once, with the reason, and their connection ends.
func TestHeadsThatOthersReadDifferently(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel, up.Address())
	auth := "Host: x\r\nAuthorization: Bearer " + g.secret + "\r\n"
	const line, length, chunked = "POST /v1/chat/completions HTTP/1.1\r\n", "Content-Length: 13\r\n", "Transfer-Encoding: chunked\r\n"
	const chunkedBody = "d\r\n" + plainM + "\r\n0\r\n\r\n"
	for name, test := range map[string]struct {
		head, body string
		status     int
		says       string
	}{
		"plain":                          {line + auth + length + "\r\n", plainM, 200, ""},
		"chunked":                        {line + auth + "transfer-encoding:  CHUNKED \r\n\r\n", chunkedBody, 200, ""},
		"space in a name":                {line + auth + "X A: 1\r\n" + length + "\r\n", plainM, 400, "space in it"},
		"space before the colon":         {line + auth + "X-A : 1\r\n" + length + "\r\n", plainM, 400, "not valid HTTP"},
		"space before the length":        {line + auth + "Content-Length : 13\r\n\r\n", plainM, 400, "not valid HTTP"},
		"a length with a space":          {line + auth + length + "Content Length: 3\r\n\r\n", plainM, 400, "space in it"},
		"folded":                         {line + auth + "X-A: 1\r\n 2\r\n" + length + "\r\n", plainM, 400, "in one line"},
		"folded with a tab":              {line + auth + length + "X-A: 1\r\n\t2\r\n\r\n", plainM, 400, "in one line"},
		"identity":                       {line + auth + "Transfer-Encoding: identity\r\n" + length + "\r\n", plainM, 400, "must be chunked"},
		"identity alone":                 {line + auth + "Transfer-Encoding: identity\r\n\r\n", "", 400, "must be chunked"},
		"gzip, chunked":                  {line + auth + "Transfer-Encoding: gzip, chunked\r\n\r\n", chunkedBody, 400, "not valid HTTP"},
		"chunked twice":                  {line + auth + chunked + chunked + "\r\n", chunkedBody, 400, "not valid HTTP"},
		"length and chunked":             {line + auth + length + chunked + "\r\n", chunkedBody, 400, "must not be sent together"},
		"chunked and length":             {line + auth + chunked + length + "\r\n", chunkedBody, 400, "must not be sent together"},
		"HTTP/2.0":                       {"POST /v1/chat/completions HTTP/2.0\r\n" + auth + length + "\r\n", plainM, 505, "HTTP/1.1"},
		"HTTP/1.2":                       {"POST /v1/chat/completions HTTP/1.2\r\n" + auth + length + "\r\n", plainM, 505, "HTTP/1.1"},
		"HTTP/0.9":                       {"GET /v1/models HTTP/0.9\r\n" + auth + "\r\n", "", 505, "HTTP/1.1"},
		"HTTP/3":                         {"GET /v1/models HTTP/3\r\n" + auth + "\r\n", "", 505, "HTTP/1.1"},
		"the preface of HTTP/2":          {"PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r\n", 505, "HTTP/1.1"},
		"no version":                     {"GET /v1/models\r\n" + auth + "\r\n", "", 400, "not valid HTTP"},
		"lines without CR":               {strings.ReplaceAll(line+auth+length+"\r\n", "\r", ""), plainM, 400, "CR LF"},
		"lines without CR, no body":      {strings.ReplaceAll("GET /v1/models HTTP/1.1\r\n"+auth+"\r\n", "\r", ""), "", 400, "CR LF"},
		"a request line without CR":      {"POST /v1/chat/completions HTTP/1.1\n" + auth + length + "\r\n", plainM, 400, "CR LF"},
		"one header without CR":          {line + auth + "X-A: 1\n" + length + "\r\n", plainM, 400, "CR LF"},
		"a blank line without CR":        {line + auth + length + "\n" + plainM + "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", 400, "CR LF"},
		"blank lines before the request": {"\r\n\r\n" + line + auth + length + "\r\n", plainM, 200, ""},
		"a body with lines of its own":   {line + auth + "Content-Length: 17\r\n\r\n", "{\n\"model\":\n\"m\"\n\n}", 200, ""},
	} {
		for _, split := range []int{0, 1, 2, 7} {
			t.Run(fmt.Sprintf("%s, split %d", name, split), func(t *testing.T) {
				before := len(up.Requests())
				conn, err := g.dial(context.Background(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second)) // less than timeouts.client.header
				for text := test.head + test.body; len(text) > 0; {
					n := len(text)
					if split > 0 && n > split*40 {
						n = split
					}
					if _, err := io.WriteString(conn, text[:n]); err != nil {
						break // refused before
					}
					text = text[n:]
				}
				b := make([]byte, 4096)
				n, _ := io.ReadAtLeast(conn, b, 100)
				got := string(b[:n])
				if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", test.status)) || !strings.Contains(got, test.says) {
					t.Fatalf("%q", got)
				}
				if test.status == 200 {
					return
				}
				if !strings.Contains(got, "Connection: close\r\n") || len(up.Requests()) != before {
					t.Errorf("%q, %d requests went up", got, len(up.Requests())-before)
				}
			})
		}
	}
}

// TestPipelinedHeads: one that has come together with the request before is checked too, and a body
// behind it is not taken for a head.
func TestPipelinedHeads(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel, up.Address())
	one := func(lines, body string) string {
		return strings.Replace(g.rawPost("/v1/chat/completions", lines, body), "Connection: close\r\n", "", 1)
	}
	const inLines = "{\n\"model\":\n\"m\"\n}"
	got := g.raw(one("", inLines) + one("", inLines) + one("X A: 1\r\n", plainM) + one("", plainM))
	if strings.Count(got, "HTTP/1.1 200 ") != 2 || strings.Count(got, "HTTP/1.1 400 ") != 1 || len(up.Requests()) != 2 {
		t.Errorf("%q", got)
	}
	// The second head is in the server's buffer when the body behind it is read.
	first, second := one("", inLines), one("", inLines)
	at := strings.Index(second, "\r\n\r\n") + 4
	conn, err := g.dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, first+second[:at]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first is answered", func() bool { return len(up.Requests()) == 3 })
	if _, err := io.WriteString(conn, second[at:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second is answered", func() bool { return len(up.Requests()) == 4 })
}

// TestFramingIsBounded: chunks may have extensions, and be as small as they like, but the bytes around
// data must not go on for ever.
func TestFramingIsBounded(t *testing.T) {
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(okReply))
	g := startTCP(t, oneModel, up.Address())
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + g.secret + "\r\nTransfer-Encoding: chunked\r\n\r\n"
	bytewise := func(extension, body string) string {
		var b strings.Builder
		for _, c := range []byte(body) {
			fmt.Fprintf(&b, "1%s\r\n%c\r\n", extension, c)
		}
		return b.String()
	}
	long := `{"model":"m","a":"` + strings.Repeat("x", 100<<10) + `"}`
	for name, test := range map[string]struct{ body, want string }{
		"an extension":             {"d;a=\"b\"\r\n" + plainM + "\r\n0\r\n\r\n", "HTTP/1.1 200 "},
		"chunks of a byte":         {bytewise("", long) + "0\r\n\r\n", "HTTP/1.1 200 "},
		"a trailer":                {"d\r\n" + plainM + "\r\n0\r\nX-A: b\r\n\r\n", "HTTP/1.1 200 "},
		"an endless extension":     {"d;" + strings.Repeat("a", 400<<10), "HTTP/1.1 400 "},
		"an extension on each":     {bytewise(";abcdefghijklmnopqrstuvwxyz", long), "HTTP/1.1 400 "},
		"an endless trailer":       {"d\r\n" + plainM + "\r\n0\r\nX-A: " + strings.Repeat("a", 400<<10), "HTTP/1.1 400 "},
		"refused, endless chunks":  {"zz\r\n" + strings.Repeat("a", 100<<10), "HTTP/1.1 400 "},
		"an endless size of zeros": {strings.Repeat("0", 400<<10), "HTTP/1.1 400 "},
	} {
		if got := g.raw(head + test.body); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %.200q", name, got)
		}
	}
}

// TestAnswerBesideABodyNobodyReads reaches the client, which sends all before it reads.
func TestAnswerBesideABodyNobodyReads(t *testing.T) {
	g := startTCP(t, oneModel, "127.0.0.1:1")
	body := strings.Repeat("x", 4<<20)
	for _, path := range []string{"/v1/models", "/v1/key", "/healthz", "/readyz", "/v1/models/m", "/nowhere"} {
		for name, framed := range map[string]string{
			"length":  fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
			"chunked": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body),
		} {
			got := g.raw("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + g.secret + "\r\n" + framed)
			if !strings.HasPrefix(got, "HTTP/1.1 ") || !strings.HasSuffix(got, "}\n") && !strings.HasSuffix(got, "}}") {
				t.Errorf("%s, %s: %q", path, name, got)
			}
		}
	}
}
