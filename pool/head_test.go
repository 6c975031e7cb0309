package pool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/internal/upstreamtest"
)

// takeHead reads a head from r, as it comes.
func takeHead(from io.Reader, limit int) (*fasthttp.ResponseHeader, *bufio.Reader, error) {
	h := new(fasthttp.ResponseHeader)
	r, n, err := awaitHead(bufio.NewReaderSize(from, readBuffer), from, limit)
	if err == nil {
		err = parseHead(h, r, n)
	}
	return h, r, err
}

// TestHeadsThatAreRefused: each at the end of the line that is at fault, while nothing more comes, and
// with no byte of it in the error.
func TestHeadsThatAreRefused(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for head, want := range map[string]error{
		"SSH-2":                                               notHTTP,
		"\r\nHTTP/1.1 200 OK\r\n":                             notHTTP,
		"\x15\x03\x01":                                        notHTTP,
		"http/1.1 200 OK\r\n":                                 notHTTP,
		"HTTP/2":                                              notHTTP,
		"HTTP/0.9 200 OK\r\n":                                 notHTTP,
		"HTTP/1.2 200 OK\r\n":                                 notHTTP,
		"HTTP/1.10 200 OK\r\n":                                notHTTP,
		"HTTP/1.1\r\n":                                        notHTTP,
		"HTTP/1.1\t200 OK\r\n":                                notHTTP,
		"HTTP/1.1  200 OK\r\n":                                badStatus,
		"HTTP/1.1 000 secret\r\n":                             badStatus,
		"HTTP/1.1 099 secret\r\n":                             badStatus,
		"HTTP/1.1 600 secret\r\n":                             badStatus,
		"HTTP/1.1 999 secret\r\n":                             badStatus,
		"HTTP/1.1 20 secret\r\n":                              badStatus,
		"HTTP/1.1 2000 secret\r\n":                            badStatus,
		"HTTP/1.1 2x0 secret\r\n":                             badStatus,
		"HTTP/1.1 -20 secret\r\n":                             badStatus,
		"HTTP/1.1 200secret\r\n":                              badStatus,
		"HTTP/1.1 200\tsecret\r\n":                            badStatus,
		"HTTP/1.1 \r\n":                                       badStatus,
		"HTTP/1.1 200 secret\n":                               bareFeed,
		ok + "secret: x\n":                                    bareFeed,
		ok + "X-A: x\r\n\n":                                   bareFeed,
		ok + "\n":                                             bareFeed,
		ok + "secret\r\n":                                     badLine,
		ok + ": secret\r\n":                                   badLine,
		ok + " secret: x\r\n":                                 foldedLine,
		ok + "X-A: x\r\n secret\r\n":                          foldedLine,
		ok + "X-A: x\r\n\tsecret: x\r\n":                      foldedLine,
		ok + "X-A : secret\r\n":                               spacedName,
		ok + "X-A\t: secret\r\n":                              spacedName,
		ok + "X A: secret\r\n":                                spacedName,
		ok + "Content-Length : 5\r\n":                         spacedName,
		ok + "Transfer-Encoding : chunked\r\n":                spacedName,
		ok + "X-\x00: secret\r\n\r\n":                         badHeader,
		ok + "X-\xc3\xa9: secret\r\n\r\n":                     badHeader,
		ok + "X(: secret\r\n\r\n":                             badHeader,
		ok + "X-A: secret\x00\r\n\r\n":                        badHeader,
		ok + "X-A: secret\rX-B: y\r\n\r\n":                    badHeader,
		ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n": badHeader,
		ok + "Content-Length: 5, 5\r\n\r\n":                   badHeader,
		ok + "Content-Length: +5\r\n\r\n":                     badHeader,
		ok + "Content-Length: -5\r\n\r\n":                     badHeader,
		ok + "Content-Length: 0x5\r\n\r\n":                    badHeader,
		ok + "Content-Length:\r\n\r\n":                        badHeader,
		ok + "Content-Length: 99999999999999999999\r\n\r\n":   badHeader,
		ok + "Transfer-Encoding: identity\r\n\r\n":            badHeader,
		ok + "Transfer-Encoding: gzip, chunked\r\n\r\n":       badHeader,
		ok + "Transfer-Encoding: chunked, identity\r\n\r\n":   badHeader,
		ok + "Transfer-Encoding: secret\r\n\r\n":              badHeader,
		ok + "Transfer-Encoding:\r\n\r\n":                     badHeader,
		ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": badHeader,
		ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n":          twoLengths,
		ok + "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n":          twoLengths,
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n":                 oldChunked,
	} {
		for name, from := range map[string]io.Reader{
			"whole":        strings.NewReader(head),
			"byte by byte": iotest.OneByteReader(strings.NewReader(head)),
		} {
			// What is read after the fault has been there is a failure.
			_, _, err := takeHead(io.MultiReader(from, iotest.ErrReader(errors.New("waits"))), 1<<20)
			if err != want || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q, %s: %v, not %v", head, name, err, want)
			}
		}
	}
}

func TestHeadsThatAreTaken(t *testing.T) {
	for head, want := range map[string]struct{ status, length int }{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n":                      {200, 5},
		"HTTP/1.1 200 OK\r\nContent-Length:5 \r\nX-A:\r\nX-B: \t y\r\n\r\n": {200, 5},
		"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n":                        {200, 0},
		"HTTP/1.1 599\r\nContent-Length: 1\r\n\r\n":                         {599, 1},
		"HTTP/1.1 100 Continue\r\n\r\n":                                     {100, -2},
		"HTTP/1.1 404 caf\xc3\xa9\r\nContent-Length: 1\r\n\r\n":             {404, 1},
		"HTTP/1.0 200 OK\r\nContent-Type: a/b\r\n\r\n":                      {200, UntilClose},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n":             {200, -1},
	} {
		h, r, err := takeHead(iotest.OneByteReader(strings.NewReader(head+"body")), 4<<10)
		if err != nil || h.StatusCode() != want.status || want.status != 100 && h.ContentLength() != want.length {
			t.Errorf("%q: %d, %d, %v", head, h.StatusCode(), h.ContentLength(), err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "body" {
			t.Errorf("%q: %q is left", head, rest)
		}
	}
}

// TestHeadsGrow up to the limit and no further, and no byte of them is looked at twice.
func TestHeadsGrow(t *testing.T) {
	const limit = 64 << 10
	head := func(size int) string {
		var b strings.Builder
		b.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n")
		for i := 0; b.Len() < size-200; i++ {
			fmt.Fprintf(&b, "X-%d: secret-words\r\n", i)
		}
		fmt.Fprintf(&b, "X-Last: %s\r\n\r\n", strings.Repeat("x", size-b.Len()-len("X-Last: \r\n\r\n")))
		return b.String()
	}
	for _, size := range []int{readBuffer - 1, readBuffer, readBuffer + 1, 40_000, limit} {
		for name, from := range map[string]io.Reader{
			"at once":      strings.NewReader(head(size) + "body"),
			"byte by byte": iotest.OneByteReader(strings.NewReader(head(size) + "body")),
		} {
			h, r, err := takeHead(from, limit)
			if err != nil || h.ContentLength() != 4 {
				t.Fatalf("%d bytes %s: %v", size, name, err)
			}
			if rest, _ := io.ReadAll(r); string(rest) != "body" {
				t.Errorf("%d bytes %s: %q is left", size, name, rest)
			}
		}
	}
	for _, from := range []string{head(limit + 1), head(1 << 20), "HTTP/1.1 200 " + strings.Repeat("x", limit)} {
		_, r, err := takeHead(io.MultiReader(strings.NewReader(from), iotest.ErrReader(errors.New("waits"))), limit)
		if err != longHead || r.Size() > limit {
			t.Errorf("%d bytes: %v, with a buffer of %d", len(from), err, r.Size())
		}
	}
	var s headScan
	for whole := []byte(head(limit)); ; {
		n := s.seen + 1
		if end, err := s.scan(whole[:n]); err != nil || s.seen != n || end == len(whole) {
			if err != nil || end != len(whole) {
				t.Errorf("%d of %d bytes were looked at: %d, %v", s.seen, n, end, err)
			}
			break
		}
	}
}

// TestNothingOfAHeadIsTold, in whatever way it is wrong: an upstream may put a secret anywhere.
func TestNothingOfAHeadIsTold(t *testing.T) {
	const wait = 100 * time.Millisecond
	for name, c := range map[string]struct {
		says  string
		cause Cause
	}{
		"no HTTP":              {"hunter2 hunter2\r\n\r\n", MalformedResponse},
		"stalls":               {"HTTP/1.1 200 OK\r\nX-Key: hunter2\r\nX-", FirstByteTimeout},
		"stalls in a value":    {"HTTP/1.1 200 OK\r\nX-Key: hunter2", FirstByteTimeout},
		"LF":                   {"HTTP/1.1 200 OK\nX-Key: hunter2\n\n", MalformedResponse},
		"status":               {"HTTP/1.1 999 hunter2\r\n\r\n", MalformedResponse},
		"length":               {"HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n", MalformedResponse},
		"coding":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: hunter2\r\n\r\n", MalformedResponse},
		"trailers":             {"HTTP/1.1 200 OK\r\nTrailer: hunter2, content-length\r\nContent-Length: 0\r\n\r\n", MalformedResponse},
		"control character":    {"HTTP/1.1 200 OK\r\nX-Key: hunter2\x00\r\n\r\n", MalformedResponse},
		"too long":             {"HTTP/1.1 200 OK\r\nX-Key: " + strings.Repeat("hunter2", 10_000), MalformedResponse},
		"interim without end":  {strings.Repeat("HTTP/1.1 103 hunter2\r\n\r\n", mostInterim+1), MalformedResponse},
		"long interim answers": {strings.Repeat("HTTP/1.1 103 x\r\nX-Key: "+strings.Repeat("hunter2", 200)+"\r\n\r\n", 50), MalformedResponse},
		"chunks":               {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhunter2\r\n", ResponseBroken},
	} {
		t.Run(name, func(t *testing.T) {
			up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { _, _ = io.WriteString(conn, c.says) })
			p := empty()
			defer p.Close()
			target := targetOf(t, p, "upstreams: {up: {base_url: http://"+up.Address()+"/v1}}\nmodels: {m: {targets: [{upstream: up}]}}\n")
			x := Acquire()
			defer Release(x)
			defer x.Finish()
			x.Head = fmt.Appendf(nil, "POST /%sContent-Length: 0\r\n\r\n", target.Head)
			deadline := time.Now().Add(10 * time.Second)
			if c.cause == FirstByteTimeout {
				deadline = time.Now().Add(wait)
			}
			cause, err := ResponseBroken, x.Send(target, deadline)
			if err == nil {
				_, err = io.ReadAll(x)
			}
			var e *Error
			if errors.As(err, &e) {
				cause = e.Cause
			}
			if err == nil || cause != c.cause || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v", err)
			}
			if name == "too long" && !strings.Contains(err.Error(), "limits.upstream_head") {
				t.Errorf("%v does not name the limit", err)
			}
		})
	}
}

// TestLongHeadsFollowTheConfiguration: a reload changes the limit, and keeps the upstream.
func TestLongHeadsFollowTheConfiguration(t *testing.T) {
	body := strings.Repeat("b", 50_000)
	text := "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 70_000) + fmt.Sprintf("\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	up := upstreamtest.NewRaw(t, upstreamtest.Reply(text))
	p := empty()
	defer p.Close()
	with := func(limit string) *Target {
		return targetOf(t, p, "limits: {upstream_head: "+limit+"}\nupstreams: {up: {base_url: http://"+up.Address()+"/v1}}\nmodels: {m: {targets: [{upstream: up}]}}\n")
	}
	small := with("64KiB")
	if _, err := exchange(t, small, "x"); !errors.Is(err, longHead) {
		t.Errorf("%v", err)
	}
	large := with("128KiB")
	for range 2 {
		if got, err := exchange(t, large, "x"); err != nil || got != body {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if up.Accepted() != 2 || small.Upstream != large.Upstream {
		t.Errorf("%d connections", up.Accepted())
	}
}
