package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"
)

// TestWrongAnswersAreSeen: a bench that takes anything for an answer measures nothing.
func TestWrongAnswersAreSeen(t *testing.T) {
	const plainHead, streamHead = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	annotated := `{"gateway":{},` + plainAnswer[1:]
	two := eventData + eventData
	for name, test := range map[string]struct {
		events int
		text   string
		right  bool
	}{
		"plain":                    {0, string(plainResponse), true},
		"annotated, in chunks":     {0, plainHead + chunkOf(annotated[:20]) + chunkOf(annotated[20:]) + "0\r\n\r\n", true},
		"another answer":           {0, plainHead + chunkOf(`{"a":1}`) + "0\r\n\r\n", false},
		"an error":                 {0, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", false},
		"cut short":                {0, string(plainResponse[:len(plainResponse)-1]), false},
		"a stream":                 {2, streamHead + chunkOf(two) + chunkOf(doneData) + "0\r\n\r\n", true},
		"a stream cut anywhere":    {2, streamHead + chunkOf(two[:len(eventData)-1]) + chunkOf(two[len(eventData)-1:]+doneData[:3]) + chunkOf(doneData[3:]) + "0\r\n\r\n", true},
		"a stream that lost one":   {2, streamHead + chunkOf(eventData) + chunkOf(doneData) + "0\r\n\r\n", false},
		"a stream without its end": {2, streamHead + chunkOf(two) + "0\r\n\r\n", false},
		"a stream that breaks":     {2, streamHead + chunkOf(two) + chunkOf(doneData), false},
		"a stream with an error":   {2, streamHead + chunkOf(eventData) + chunkOf("data: {\"error\":{}}\n\n") + "0\r\n\r\n", false},
	} {
		c := &client{br: bufio.NewReader(strings.NewReader(test.text))}
		_, err := c.answer(&scenario{events: test.events})
		if (err == nil) != test.right {
			t.Errorf("%s: %v", name, err)
		}
		if rest, _ := io.ReadAll(c.br); test.right && len(rest) > 0 {
			t.Errorf("%s: %q is left for the next answer", name, rest)
		}
	}
}

// TestUpstream: what the bench asks its own upstream for is what it gets.
func TestUpstream(t *testing.T) {
	up, err := serveUpstream()
	if err != nil {
		t.Fatal(err)
	}
	defer up.close()
	for _, sc := range []scenario{{conns: 2, body: 300}, {conns: 2, body: 100_000}, {conns: 2, body: 300, events: 50}} {
		sub, err := start(context.Background(), "direct", t.TempDir(), new(settings), &sc, up)
		if err != nil {
			t.Fatal(err)
		}
		clients, err := sub.connect(context.Background(), sc.conns)
		if err != nil {
			t.Fatal(err)
		}
		l, err := sub.closedLoop(context.Background(), &sc, clients, 20*time.Millisecond)
		if err != nil || l.units == 0 || sc.events == 0 && len(l.latencies) != l.units {
			t.Errorf("%+v: %d, %v", sc, l.units, err)
		}
		if n := len(sub.body(&sc)); n > sc.body || n < sc.body-2 {
			t.Errorf("a body of %d bytes in place of %d", n, sc.body)
		}
		closeAll(clients)
	}
}

func TestMedianAndRatio(t *testing.T) {
	of := func(us ...int) (turns []turn) {
		for _, n := range us {
			turns = append(turns, turn{units: 1, cpu: time.Duration(n) * time.Microsecond})
		}
		return turns
	}
	r := &result{turns: map[string][]turn{"sluice": of(30, 20, 90), "nginx": of(10, 20, 30)}}
	if m, lo, hi := r.ratio("sluice", "nginx"); m != 3 || lo != 1 || hi != 3 {
		t.Errorf("%v, %v, %v", m, lo, hi)
	}
}
