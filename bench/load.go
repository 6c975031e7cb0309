package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// loaded is what a load got done. Every answer was right, or there is an error instead.
type loaded struct {
	units     int
	latencies []time.Duration
	quantiles func(float64) time.Duration // in place of latencies
}

func (l *loaded) percentile(p int) time.Duration {
	if l.quantiles != nil {
		return l.quantiles(float64(p) / 100)
	}
	if len(l.latencies) == 0 {
		return 0
	}
	slices.Sort(l.latencies)
	return l.latencies[(len(l.latencies)-1)*p/100]
}

// request is a request's bytes for one key.
func (sub *subject) request(sc *scenario, key string) []byte {
	body := sub.body(sc)
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nUser-Agent: bench\r\nContent-Length: %d\r\n\r\n%s",
		sub.path, key, len(body), body)
}

// body is a chat's request of the scenario's size: text, with some of what JSON escapes.
func (sub *subject) body(sc *scenario) []byte {
	stream := ""
	if sc.events > 0 {
		stream = `"stream":true,`
	}
	head, tail := `{"model":"`+sub.model+`",`+stream+`"temperature":0.7,"messages":[{"role":"user","content":"`, `"}]}`
	const words = `The wheel said: \"Let through what I can use today, and no more of it than that.\"\n`
	text := strings.Repeat(words, sc.body/len(words)+1)[:max(0, sc.body-len(head)-len(tail))]
	text = strings.TrimRight(text, `\`)
	return []byte(head + text + tail)
}

// closedLoop has each connection send its next request when it has the answer to the last.
func (sub *subject) closedLoop(ctx context.Context, sc *scenario, clients []*client, d time.Duration) (all loaded, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			one, oneErr := sub.loop(ctx, sc, c, i)
			mu.Lock()
			defer mu.Unlock()
			all.units += one.units
			all.latencies = append(all.latencies, one.latencies...)
			err = errors.Join(err, oneErr)
		})
	}
	wg.Wait()
	return all, err
}

// loop is one connection's. It sends nothing more once ctx is over.
func (sub *subject) loop(ctx context.Context, sc *scenario, c *client, i int) (l loaded, err error) {
	// A connection goes through the keys, each other one beginning elsewhere.
	var requests [][]byte
	for k := range min(len(sub.keys), 8) {
		requests = append(requests, sub.request(sc, sub.keys[(i*8+k)%len(sub.keys)]))
	}
	for n := 0; ctx.Err() == nil; n++ {
		began := time.Now()
		_ = c.SetDeadline(began.Add(30 * time.Second))
		if _, err := c.Write(requests[n%len(requests)]); err != nil {
			return l, err
		}
		events, err := c.answer(sc)
		if err != nil {
			return l, err
		}
		if sc.events > 0 {
			l.units += events
		} else {
			l.units++
			l.latencies = append(l.latencies, time.Since(began))
		}
	}
	return l, nil
}

// client is a connection to a subject.
type client struct {
	net.Conn
	br  *bufio.Reader
	buf []byte
}

// connect opens connections; what it has opened is returned with an error, too.
func (sub *subject) connect(ctx context.Context, n int) (all []*client, err error) {
	for range n {
		c, err := sub.dial(ctx)
		if err != nil {
			return all, err
		}
		all = append(all, c)
	}
	return all, nil
}

func closeAll(clients []*client) {
	for _, c := range clients {
		c.Close()
	}
}

func (sub *subject) dial(ctx context.Context) (*client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", sub.address)
	if err != nil {
		return nil, err
	}
	return &client{Conn: conn, br: bufio.NewReaderSize(conn, 16<<10)}, nil
}

// head reads an answer's head. length is negative for a chunked body.
func (c *client) head() (length int, err error) {
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("answered %q", line)
	}
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			return length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			length = -1
		}
	}
}

func newChunks(r io.Reader) io.Reader { return httputil.NewChunkedReader(r) }

// answer reads an answer to its end and holds it against what the upstream has sent: a proxy
// may put a member in front of a JSON object, and change nothing else.
func (c *client) answer(sc *scenario) (events int, err error) {
	length, err := c.head()
	if err != nil {
		return 0, err
	}
	body := io.Reader(io.LimitReader(c.br, int64(length)))
	if length < 0 {
		body = newChunks(c.br)
	}
	if sc.events > 0 {
		return c.stream(body, sc.events)
	}
	c.buf = c.buf[:0]
	for {
		c.buf = slices.Grow(c.buf, 1024)
		n, err := body.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if length < 0 {
		_, _ = c.br.Discard(2) // the line after the last chunk
	}
	if !bytes.HasPrefix(c.buf, []byte{'{'}) || !bytes.HasSuffix(c.buf, []byte(plainAnswer[1:])) {
		return 0, fmt.Errorf("a wrong answer: %q", c.buf)
	}
	return 0, nil
}

// stream reads events to the stream's end, which must be the terminator.
func (c *client) stream(body io.Reader, want int) (events int, err error) {
	buf := slices.Grow(c.buf[:0], 32<<10)[:32<<10]
	var last [len(doneData)]byte // of what has come
	ends := 0
	for {
		n, err := body.Read(buf)
		// Two line feeds end an event; the first may have been the last byte of the read before.
		if n > 0 {
			if last[len(last)-1] == '\n' && buf[0] == '\n' {
				ends++
			}
			ends += bytes.Count(buf[:n], []byte("\n\n"))
			tail := append(last[:], buf[max(0, n-len(last)):n]...)
			copy(last[:], tail[len(tail)-len(last):])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	c.buf = buf
	_, _ = c.br.Discard(2)
	if string(last[:]) != doneData || ends != want+1 {
		return 0, fmt.Errorf("a stream of %d events, with %q at the end, in place of %d and the terminator", ends, last, want)
	}
	return want, nil
}

// atRate sends requests at a fixed rate, whatever becomes of those before.
func (sub *subject) atRate(ctx context.Context, sc *scenario, d time.Duration) (l loaded, err error) {
	header := http.Header{"Authorization": {"Bearer " + sub.keys[0]}, "Content-Type": {"application/json"}}
	targeter := vegeta.NewStaticTargeter(vegeta.Target{Method: "POST", URL: "http://" + sub.address + sub.path, Header: header, Body: sub.body(sc)})
	attacker := vegeta.NewAttacker(vegeta.Connections(sc.conns), vegeta.KeepAlive(true), vegeta.Timeout(10*time.Second), vegeta.Workers(uint64(sc.conns)))
	var m vegeta.Metrics
	for r := range attacker.Attack(targeter, vegeta.Rate{Freq: sc.rate, Per: time.Second}, d, sub.name) {
		m.Add(r)
		if r.Code != 200 || !bytes.HasSuffix(r.Body, []byte(plainAnswer[1:])) {
			attacker.Stop()
			err = fmt.Errorf("answered %d %s %.200q", r.Code, r.Error, r.Body)
		}
		if ctx.Err() != nil {
			attacker.Stop()
			err = ctx.Err()
		}
	}
	m.Close()
	return loaded{units: int(m.Requests), quantiles: m.Latencies.Quantile}, err
}
