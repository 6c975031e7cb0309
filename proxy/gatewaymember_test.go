package proxy

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	"sluice/internal/growth"
	"sluice/internal/upstreamtest"
)

const theirs = `"gateway":{"model":"x","upstream":"far","attempts":3,"failed":[{}]}`

// TestGatewayMemberIsReplaced: an upstream's own gateway member gives way to ours, in a plain answer
// and in the first event of a stream, so that no name stands twice.
func TestGatewayMemberIsReplaced(t *testing.T) {
	for _, c := range []struct{ said, want string }{
		{`{` + theirs + `,"id":"x","choices":[{}]}`, `{` + ours + `,"id":"x","choices":[{}]}`},
		{`{ ` + theirs + ` , "id":"x"}`, `{` + ours + `,"id":"x"}`},
		{`{` + theirs + `}`, `{` + ours + `}`},
		{`{` + theirs + ` }`, `{` + ours + ` }`},
		{`{` + theirs + `,"gateway":1}`, `{` + ours + `}`},
		{`{"id":"x",` + theirs + `}`, `{` + ours + `,"id":"x"}`},
		{`{"id":"x",` + theirs + `,"gateway":2,"b":[{"gateway":3}]}`, `{` + ours + `,"id":"x","b":[{"gateway":3}]}`},
		{`{"id":"x","gate\u0077ay":1,"b":1}`, `{` + ours + `,"id":"x","b":1}`},
		{`{"\u0067ateway":1,"b":1}`, `{` + ours + `,"b":1}`},
		{`{"id":"x","b":{"gateway":1}}`, `{` + ours + `,"id":"x","b":{"gateway":1}}`},
		{`{"id":"\"gateway\":1,"}`, `{` + ours + `,"id":"\"gateway\":1,"}`},
		{"\n" + `{"gateway":1,"b":1}`, "\n" + `{"gateway":1,"b":1}`}, // ours is not in it either
		{"\n" + `{"a":1,"gateway":1}`, "\n" + `{"a":1,"gateway":1}`},
		{`[{"gateway":1}]`, `[{"gateway":1}]`},
		{`{"gateways":1}`, `{` + ours + `,"gateways":1}`},
	} {
		for name, answer := range map[string]func(net.Conn, *upstreamtest.Recorded){
			"plain":  upstreamtest.Reply(reply("200 OK", "application/json", c.said)),
			"event":  func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, "data: "+c.said+"\n\n", chunkDone) },
			"passes": upstreamtest.Reply(reply("200 OK", "text/plain", c.said)),
		} {
			up := upstreamtest.NewRaw(t, answer)
			g := start(t, oneModel, up.Address())
			a := g.post("/v1/chat/completions", request1)
			body := strings.TrimSuffix(strings.TrimPrefix(a.body, "data: "), "\n\n"+chunkDone)
			if a.status != 200 || a.err != nil || !json.Valid([]byte(body)) {
				t.Errorf("%s %s: %d %s %v", name, c.said, a.status, a.body, a.err)
			}
			// What was taken out may have left spaces.
			if got := strings.ReplaceAll(body, " ", ""); got != strings.ReplaceAll(c.want, " ", "") {
				t.Errorf("%s %s:\ngot  %s\nwant %s", name, c.said, body, c.want)
			}
		}
	}
	// In data of several lines theirs stays alone.
	event := "data: {\ndata: " + theirs + ",\ndata: \"id\":1}\n\n"
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { chunks(conn, event, chunkDone) })
	g := start(t, oneModel, up.Address())
	if a := g.post("/v1/chat/completions", request1); a.body != event+chunkDone {
		t.Errorf("%s", a.body)
	}
}

func TestWithoutGatewayTakesLinearTime(t *testing.T) {
	for name, member := range map[string]string{"first": `"gateway":1,`, "later": `"a":1,"gateway":1,`, "escaped": `"a":1,"\u0067ateway":1,`} {
		growth.Linear(t, name, func(n int) func() {
			text := "{" + strings.Repeat(member, n/len(member)) + `"z":1}`
			return func() { withoutGateway([]byte(text), true) }
		})
	}
}

// BenchmarkGatewayOf is what it takes to know that a plain answer has no gateway member of its own, beside
// the walk over it: as its text has it, with a search of its own and with none.
func BenchmarkGatewayOf(b *testing.B) {
	text := strings.Repeat(`A line of \"text\" with code:\n\n`+"```go"+`\n\tx := 1\n`+"```"+`\n`, 50<<10/60)
	body := []byte(`{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` + text + `"}}],"usage":{"prompt_tokens":9,"completion_tokens":9}}`)
	for _, search := range []bool{true, false} {
		b.Run(fmt.Sprintf("search=%v", search), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				rest, _ := withoutGateway(body, search)
				if top, whole := topOf(rest); !whole || top.gateways > 0 {
					b.Fatal("it has one")
				}
			}
		})
	}
}
