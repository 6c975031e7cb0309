package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// upstream is a provider that does as little as one can. The request's path tells it what to
// answer: /v1/chat/completions a plain answer, with /v1/EVENTS/MICROSECONDS before it a stream.
type upstream struct {
	ln net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// plainAnswer is what a plain request gets. What follows its brace must reach the client.
const plainAnswer = `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant",` +
	`"content":"A sluice is a gate that lets through just as much water as the wheel below can use."},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":18,"total_tokens":26}}`

const (
	eventData = `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench","choices":[{"index":0,"delta":{"content":" water"},"finish_reason":null}]}` + "\n\n"
	doneData  = "data: [DONE]\n\n"
)

func serveUpstream() (*upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{ln: ln, conns: map[net.Conn]struct{}{}}
	u.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns[conn] = struct{}{}
			u.mu.Unlock()
			u.wg.Go(func() {
				u.serve(conn)
				conn.Close()
				u.mu.Lock()
				delete(u.conns, conn)
				u.mu.Unlock()
			})
		}
	})
	return u, nil
}

func (u *upstream) address() string { return u.ln.Addr().String() }

func (u *upstream) close() {
	u.ln.Close()
	u.mu.Lock()
	for c := range u.conns {
		c.Close()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

var plainResponse = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(plainAnswer)) + "\r\n\r\n" + plainAnswer)

// chunkOf is s as a chunk of a chunked body.
func chunkOf(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func (u *upstream) serve(conn net.Conn) {
	br := bufio.NewReaderSize(conn, 16<<10)
	bw := bufio.NewWriterSize(conn, 16<<10)
	for {
		path, err := readRequest(br)
		if err != nil {
			return
		}
		if events, every, ok := streamOf(path); ok {
			err = writeStream(bw, events, every)
		} else {
			_, err = conn.Write(plainResponse)
		}
		if err != nil {
			return
		}
	}
}

// readRequest reads a request to its end and gives its path.
func readRequest(br *bufio.Reader) (path string, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	fields := bytes.Fields(line)
	if len(fields) != 3 {
		return "", fmt.Errorf("not a request line: %q", line)
	}
	path = string(fields[1])
	length, chunked := 0, false
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return "", err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		_, err = io.Copy(io.Discard, newChunks(br))
	} else {
		_, err = br.Discard(length)
	}
	return path, err
}

// streamOf reads what the path asks for.
func streamOf(path string) (events int, every time.Duration, ok bool) {
	parts := strings.Split(path, "/")
	if len(parts) < 4 {
		return 0, 0, false
	}
	events, err := strconv.Atoi(parts[2])
	if err != nil {
		return 0, 0, false
	}
	us, err := strconv.Atoi(parts[3])
	return events, time.Duration(us) * time.Microsecond, err == nil
}

func writeStream(bw *bufio.Writer, events int, every time.Duration) error {
	_, _ = bw.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
	event := chunkOf(eventData)
	next := time.Now()
	for i := range events {
		if every > 0 && i > 0 {
			if err := bw.Flush(); err != nil {
				return err
			}
			next = next.Add(every)
			time.Sleep(time.Until(next))
		}
		if _, err := bw.WriteString(event); err != nil {
			return err
		}
	}
	_, _ = bw.WriteString(chunkOf(doneData) + "0\r\n\r\n")
	return bw.Flush()
}
