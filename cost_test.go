//go:build cost

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/config"
	"sluice/internal/upstreamtest"
)

// costEnv makes TestCost be the process whose instructions are counted.
const costEnv = "SLUICE_TEST_IS_COUNTED"

// costRounds is how often each input is counted.
const costRounds = 2

// mostGrowth is what an input twice as long may cost, as a multiple.
const mostGrowth = 2.5

// TestCost sends the nastiest inputs of n and of 2n bytes through every parser and scanner of
// the gateway and compares the instructions that the whole process executed. Valgrind counts
// them; it starts a new part of its output whenever costMark is called.
func TestCost(t *testing.T) {
	if os.Getenv(costEnv) != "" {
		countCosts(t)
		return
	}
	out := filepath.Join(t.TempDir(), "callgrind")
	counted := exec.Command("valgrind", "--tool=callgrind", "--callgrind-out-file="+out,
		"--dump-before=sluice.costMark", os.Args[0], "-test.run=^TestCost$", "-test.v")
	// Valgrind does not survive the signals that preempt goroutines. One processor and no
	// garbage collection make the counts repeatable.
	counted.Env = append(os.Environ(), costEnv+"=1", "GODEBUG=asyncpreemptoff=1", "GOMAXPROCS=1", "GOGC=off")
	if text, err := counted.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	part := 1 // what came before the first mark
	next := func() float64 {
		part++
		return instructions(t, out, part)
	}
	for _, c := range costCases() {
		// What the process does beside it only adds.
		once, twice := math.Inf(1), math.Inf(1)
		for range costRounds {
			once, twice = min(once, next()), min(twice, next())
			part++ // what lies between two rounds
		}
		t.Logf("%-32s %9.0f instructions for %7d bytes, %.2f times as many for twice as many bytes", c.name, once, c.n, twice/once)
		if twice > mostGrowth*once {
			t.Errorf("%s: %d bytes take %.0f instructions, twice as many bytes %.2f times as many", c.name, c.n, once, twice/once)
		}
	}
}

// instructions reads the total of one part of callgrind's output.
func instructions(t *testing.T, out string, part int) float64 {
	t.Helper()
	path := out + "." + strconv.Itoa(part)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(text, []byte("\ntotals: "))
	line, _, _ := bytes.Cut(after, []byte("\n"))
	n, err := strconv.ParseFloat(string(line), 64)
	if err != nil {
		t.Fatalf("%s has no total: %v", path, err)
	}
	return n
}

//go:noinline
func costMark() { costMarks.Add(1) }

var costMarks atomic.Int64

// costCase is an input of n bytes, more or less: a request, an answer to a plain one, or a call.
type costCase struct {
	name    string
	n       int
	request func(n int) string        // nil for a plain one
	answer  func(n int) string        // nil for a plain one
	pieces  int                       // bytes that are written at once; 0 for all
	call    func(h *costHouse, n int) // in place of a request
}

// costHouse is the gateway that is counted, and what a case needs of it.
type costHouse struct {
	*node
	key    string
	answer atomic.Pointer[string]
	pieces atomic.Int64
}

const costSettings = `
limits: {head: 1MiB, body: 32MiB, response: 32MiB}
timeouts: {connect: 60s, first_byte: 300s, response: 300s, stream_idle: 300s, client: {header: 300s, body: 300s, idle: 300s, write: 300s}}
retry: {max_retries: 0}
breaker: {failures: 1000000}
`

func countCosts(t *testing.T) {
	h := &costHouse{}
	raw := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) {
		inPieces(conn, *h.answer.Load(), int(h.pieces.Load()))
		_ = conn.Close()
	})
	h.node = begin(t, "http://"+raw.Address()+"/v1", costSettings)
	h.key = h.node.key(`{"name":"cost","limits":{"tokens":1000000000}}`)
	for _, c := range costCases() {
		h.run(t, &c, 64) // what is made once
		for range costRounds {
			costMark()
			h.run(t, &c, c.n)
			costMark()
			h.run(t, &c, 2*c.n)
			costMark()
		}
	}
}

func (h *costHouse) run(t *testing.T, c *costCase, n int) {
	if c.call != nil {
		c.call(h, n)
		return
	}
	request, answer := plainRequest("{\"model\":\"demo\",\"messages\":[]}"), jsonAnswer(`{"choices":[{}]}`)
	if c.request != nil {
		request = c.request(n)
	}
	if c.answer != nil {
		answer = c.answer(n)
	}
	h.answer.Store(&answer)
	h.pieces.Store(int64(c.pieces))
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.data, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		pieces := 0
		if c.request != nil {
			pieces = c.pieces
		}
		inPieces(conn, strings.ReplaceAll(request, "KEY", h.key), pieces)
	}()
	got, _ := io.ReadAll(conn)
	<-sent
	status, _, _ := strings.Cut(strings.TrimPrefix(string(got[:min(len(got), 64)]), "HTTP/1.1 "), " ")
	if _, err := strconv.Atoi(status); err != nil {
		t.Fatalf("%s, %d bytes: no answer: %.100q", c.name, n, got)
	}
	t.Logf("%s, %d bytes: %s", c.name, n, status)
}

// inPieces writes text, size bytes at once.
func inPieces(conn net.Conn, text string, size int) {
	if size == 0 {
		size = len(text)
	}
	for len(text) > 0 {
		n := min(size, len(text))
		if _, err := io.WriteString(conn, text[:n]); err != nil {
			return
		}
		text = text[n:]
	}
}

func plainRequest(body string) string { return requestWith("", body) }

func requestWith(headers, body string) string {
	return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)
}

func jsonAnswer(body string) string { return answerWith("Content-Type: application/json\r\n", body) }

func answerWith(headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", headers, len(body), body)
}

func textAnswer(body string) string { return answerWith("Content-Type: text/plain\r\n", body) }

// events is a stream that ends as it should.
func events(text string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + text + "data: [DONE]\n\n"
}

// fill repeats unit until it has n bytes.
func fill(unit string, n int) string { return strings.Repeat(unit, n/len(unit)+1) }

// bodyOf is a body with a member of about n bytes, made of units.
func bodyOf(before, unit, after string) func(n int) string {
	return func(n int) string {
		return plainRequest(`{"model":"demo",` + before + strings.TrimSuffix(fill(unit, n), ",") + after + `}`)
	}
}

// eventOf is a stream whose first event has about n bytes, made of units.
func eventOf(before, unit, after string) func(n int) string {
	return func(n int) string { return events(before + fill(unit, n) + after) }
}

func costCases() []costCase {
	const kilo = 1 << 10
	headers := func(unit string) func(n int) string {
		return func(n int) string { return requestWith(fill(unit, n), `{"model":"demo"}`) }
	}
	answers := func(unit string) func(n int) string {
		return func(n int) string {
			return answerWith("Content-Type: application/json\r\n"+fill(unit, n), `{"choices":[{}]}`)
		}
	}
	return []costCase{
		// The client's head.
		{name: "head: many headers", n: 32 * kilo, request: headers("A: b\r\n")},
		{name: "head: Connection and headers", n: 16 * kilo, request: func(n int) string {
			return requestWith("Connection: "+fill("a,", n)+"\r\n"+fill("Ab: c\r\n", n), `{"model":"demo"}`)
		}},
		{name: "head: many Connections", n: 16 * kilo, request: headers("Connection: ab\r\n")},
		{name: "head: one long header", n: 64 * kilo, request: func(n int) string {
			return requestWith("A: "+fill("b ", n)+"\r\n", `{"model":"demo"}`)
		}},
		{name: "head: byte by byte", n: 4 * kilo, pieces: 1, request: headers("A: b\r\n")},
		{name: "head: query", n: 32 * kilo, request: func(n int) string {
			return strings.Replace(plainRequest(`{"model":"demo"}`), "completions", "completions?"+fill("%61&;", n), 1)
		}},
		{name: "head: path", n: 16 * kilo, request: func(n int) string {
			return strings.Replace(plainRequest(`{"model":"demo"}`), "completions", fill("%61/", n), 1)
		}},
		{name: "head: credentials", n: 16 * kilo, request: headers("X-Api-Key: a\r\n")},
		// The client's body.
		{name: "body: nested", n: 64 * kilo, request: bodyOf(`"a":[`, strings.Repeat("[", 290)+strings.Repeat("]", 290)+",", `]`)},
		{name: "body: nested without end", n: 64 * kilo, request: bodyOf(`"a":`, "[", ``)},
		{name: "body: members", n: 64 * kilo, request: bodyOf(``, `"a":1,`, ``)},
		{name: "body: escaped names", n: 64 * kilo, request: bodyOf(``, `"\u006dodem":1,`, ``)},
		{name: "body: one escaped name", n: 256 * kilo, request: bodyOf(`"`, `\u006d`, `":1`)},
		{name: "body: data", n: 64 * kilo, request: bodyOf(`"a":[`, `"data",`, `]`)},
		{name: "body: data members", n: 64 * kilo, request: bodyOf(`"a":[`, `{"data":"`+strings.Repeat("a", 300)+`"},`, `]`)},
		{name: "body: data and space", n: 64 * kilo, request: bodyOf(`"data"`, ` `, `:1`)},
		{name: "body: base64 marks", n: 64 * kilo, request: bodyOf(`"a":"`, `;base64,`, `"`)},
		{name: "body: escapes", n: 256 * kilo, request: bodyOf(`"a":"`, `\"`, `"`)},
		{name: "body: numbers", n: 128 * kilo, request: bodyOf(`"a":[`, `1e1,`, `]`)},
		{name: "body: space", n: 256 * kilo, request: bodyOf(``, ` `, `"a":1`)},
		{name: "body: not JSON at its end", n: 128 * kilo, request: bodyOf(`"a":[`, `{"b":1},`, `]]`)},
		{name: "body: a long model", n: 128 * kilo, request: func(n int) string { return plainRequest(`{"model":"` + fill(`\u006d`, n) + `"}`) }},
		{name: "body: unknown fields", n: 16 * kilo, request: func(n int) string {
			return plainRequest(`{"model":"demo","gateway":{` + strings.TrimSuffix(fill(`"a\u0061":1,`, n), ",") + `}}`)
		}},
		{name: "body: stream_options", n: 16 * kilo, request: func(n int) string {
			return plainRequest(`{"model":"demo","stream":true,"stream_options":{` + fill(`"include_usage":0,`, n) + `"a":1}}`)
		}, answer: func(int) string { return events("data: {}\n\n") }},
		{name: "body: chunks of one byte", n: 32 * kilo, request: chunkedRequest("")},
		{name: "body: chunk extensions", n: 32 * kilo, request: chunkedRequest(";a=b")},
		{name: "body: byte by byte", n: 4 * kilo, pieces: 1, request: bodyOf(`"a":[`, `1,`, `]`)},
		// The upstream's head.
		{name: "answer: many headers", n: 4 * kilo, answer: answers("A: b\r\n")},
		{name: "answer: Connection and headers", n: 4 * kilo, answer: func(n int) string {
			return answerWith("Content-Type: application/json\r\nConnection: "+fill("a,", n)+"\r\n"+fill("Ab: c\r\n", n), `{}`)
		}},
		{name: "answer: head byte by byte", n: 2 * kilo, pieces: 1, answer: answers("A: b\r\n")},
		{name: "answer: interim heads", n: 2 * kilo, answer: func(n int) string {
			return fill("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", n) + jsonAnswer(`{"choices":[{}]}`)
		}},
		// Plain answers.
		{name: "answer: gateway members", n: 64 * kilo, answer: func(n int) string {
			return jsonAnswer(`{"choices":[{}],` + fill(`"gateway":1,"\u0067ateway":1,`, n) + `"a":1}`)
		}},
		{name: "answer: usage", n: 64 * kilo, answer: func(n int) string { return jsonAnswer(`{"a":[` + fill(`"usage",`, n) + `1]}`) }},
		{name: "answer: usages", n: 64 * kilo, answer: func(n int) string {
			return jsonAnswer(`{` + fill(`"usage":{"prompt_tokens":1},`, n) + `"choices":[{}]}`)
		}},
		{name: "answer: a long usage", n: 16 * kilo, answer: func(n int) string {
			return jsonAnswer(`{"usage":{` + fill(`"prompt_tokens":1,`, n) + `"a":1},"choices":[{}]}`)
		}},
		{name: "answer: nested", n: 64 * kilo, answer: func(n int) string {
			return jsonAnswer(`{"usage":1,"a":[` + fill(strings.Repeat("[", 250)+strings.Repeat("]", 250)+",", n) + `1]}`)
		}},
		{name: "answer: text that drips", n: 4 * kilo, pieces: 1, answer: func(n int) string { return textAnswer("{" + fill(" ", n)) }},
		{name: "answer: JSON that drips", n: 4 * kilo, pieces: 1, answer: func(n int) string { return jsonAnswer("{" + fill(" ", n) + `"choices":[{}]}`) }},
		{name: "answer: chunks of one byte", n: 16 * kilo, answer: func(n int) string {
			return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n" + fill("1\r\n \r\n", n) + "1\r\n}\r\n0\r\n\r\n"
		}},
		{name: "answer: an error that is held", n: 64 * kilo, answer: func(n int) string {
			return strings.Replace(jsonAnswer(`{"error":{"a":[`+fill(`"error",`, n)+`1]}}`), "200 OK", "400 Bad Request", 1)
		}},
		// Streams.
		{name: "event: lines that end in CR", n: 64 * kilo, answer: eventOf("data: {}\r", "data: a\r", "\n\n")},
		{name: "event: CR and comments", n: 64 * kilo, answer: eventOf("", ":\r", "data: {}\n\n")},
		{name: "event: data lines", n: 64 * kilo, answer: eventOf("", "data: {\n", "\n")},
		{name: "event: empty data lines", n: 64 * kilo, answer: eventOf("", "data\n", "\n")},
		{name: "event: comments", n: 64 * kilo, answer: eventOf("", ":\n", "data: {}\n\n")},
		{name: "event: blank lines", n: 64 * kilo, answer: eventOf("", "\n", "data: {}\n\n")},
		{name: "event: comments inside", n: 64 * kilo, answer: eventOf("data: {}\n", ":\n", "\n")},
		{name: "event: gateway members", n: 64 * kilo, answer: eventOf(`data: {`, `"gateway":1,"\u0067ateway":1,`, "\"a\":1}\n\n")},
		{name: "event: error names", n: 64 * kilo, answer: eventOf(`data: {"a":[`, `"error",`, "1]}\n\n")},
		{name: "event: error members", n: 64 * kilo, answer: eventOf(`data: {`, `"errors":1,"error":null,`, "\"a\":1}\n\n")},
		{name: "event: finish reasons", n: 64 * kilo, answer: eventOf(`data: {"choices":[`, `{"finish_reason":null},`, "{\"finish_reason\":1}]}\n\n")},
		{name: "event: finish reasons in space", n: 64 * kilo, answer: eventOf(`data: {"a":[`, `"finish_reason"  ,`, "1]}\n\n")},
		{name: "event: final types", n: 64 * kilo, answer: eventOf(`data: {"a":[`, `"message_stop","response.completed",`, "1]}\n\n")},
		{name: "event: tokens", n: 64 * kilo, answer: eventOf(`data: {"a":[`, `"a_tokens",`, "1]}\n\n")},
		{name: "event: rare characters", n: 64 * kilo, answer: eventOf(`data: {"a":"`, `_.`, "\"}\n\n")},
		{name: "event: nested", n: 64 * kilo, answer: eventOf(`data: {"error":null,"a":[`, strings.Repeat("[", 250)+strings.Repeat("]", 250)+",", "1]}\n\n")},
		{name: "event: byte by byte", n: 4 * kilo, pieces: 1, answer: eventOf(`data: {"a":"`, `ab`, "\"}\n\n")},
		{name: "events: small", n: 64 * kilo, answer: eventOf("", "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", "")},
		{name: "events: shortest", n: 32 * kilo, answer: eventOf("", "data:\n\n", "")},
		{name: "events: chunks of one byte", n: 16 * kilo, answer: func(n int) string {
			return "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + fill("1\r\n:\r\n1\r\n\n\r\n", n) +
				"6\r\ndata:1\r\n2\r\n\n\n\r\nE\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
		}},
		// The configuration and the keys' API.
		{name: "config: models", n: 16 * kilo, call: loaded(func(i int) string { return fmt.Sprintf("  m%d: {targets: [{upstream: up}]}\n", i) }, "", "", "")},
		{name: "config: findings", n: 8 * kilo, call: loaded(func(i int) string { return fmt.Sprintf("  m%d: {targets: [{upstream: no}]}\n", i) }, "", "", "")},
		{name: "config: fallbacks", n: 8 * kilo, call: loaded(func(i int) string {
			return fmt.Sprintf("  m%d: {targets: [{upstream: up}], fallbacks: [m%d]}\n", i, i+1)
		}, "", "", "")},
		{name: "config: variables", n: 8 * kilo, call: loaded(nil, `"`, "${NONE:-x}", `"`)},
		{name: "config: a long line", n: 1 * kilo, call: loaded(nil, "", "a: ", "")},
		{name: "config: nested", n: kilo / 2, call: loaded(nil, "", "[", "")},
		{name: "keys: models", n: 32 * kilo, call: adminCall("POST", "/api/keys", `{"name":"x","models":[`, `"demo",`, `"demo"]}`)},
		{name: "keys: unknown fields", n: 32 * kilo, call: adminCall("POST", "/api/keys", `{"name":"x",`, `"a":1,`, `"b":2}`)},
		{name: "keys: nested", n: 8 * kilo, call: adminCall("POST", "/api/keys", `{"name":"x","models":`, `[`, `}`)},
		{name: "keys: a long name", n: 64 * kilo, call: adminCall("POST", "/api/keys", `{"name":"`, `\u0061`, `"}`)},
		{name: "keys: import", n: 16 * kilo, call: adminCall("POST", "/api/import", `{"keys":[`, `{"id":"key_x"},`, `{}]}`)},
	}
}

// chunkedRequest has a body in chunks of one byte.
func chunkedRequest(extension string) func(n int) string {
	return func(n int) string {
		body := `{"model":"demo","a":[` + strings.Repeat(" ", n/6) + `]}`
		var b strings.Builder
		b.WriteString("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer KEY\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
		for i := range len(body) {
			fmt.Fprintf(&b, "1%s\r\n%c\r\n", extension, body[i])
		}
		b.WriteString("0\r\n\r\n")
		return b.String()
	}
}

// loaded reads a configuration with models of about n bytes, or with a name made of units. The last
// model's fallback is missing.
func loaded(model func(i int) string, before, unit, after string) func(h *costHouse, n int) {
	return func(h *costHouse, n int) {
		var b strings.Builder
		head := settings(filepath.Dir(h.path), "http://127.0.0.1:1/v1", "")
		b.WriteString(head[:strings.Index(head, "models: ")] + "models:\n  demo: {targets: [{upstream: up, model: \"x\"}]}\n")
		for i := 0; b.Len() < len(head)+n && unit == ""; i++ {
			b.WriteString(model(i))
		}
		if unit != "" {
			b.WriteString("  last: {targets: [{upstream: up, model: " + before + fill(unit, n) + after + "}]}\n")
		}
		path := filepath.Join(h.t.TempDir(), "counted.yaml") // the gateway watches the folder of its own
		write(h.t, path, b.String())
		_, _, err := config.Load(context.Background(), path)
		h.t.Logf("%d bytes: %.200v", n, err)
	}
}

func adminCall(method, path, before, unit, after string) func(h *costHouse, n int) {
	return func(h *costHouse, n int) { h.call(method, h.admin+path, adminToken, before+fill(unit, n)+after) }
}
