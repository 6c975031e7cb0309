package proxy

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"sluice/jsontext"
	"sluice/pool"
)

// prepared is a request that has been read, and its target.
func prepared(t testing.TB, g *gateway, body string) (*request, *pool.Target) {
	t.Helper()
	ctx := new(fasthttp.RequestCtx)
	h := &ctx.Request.Header
	h.SetMethod("POST")
	h.SetRequestURI("/v1/chat/completions?a=b")
	h.SetHost("gateway.test")
	h.SetContentType("application/json")
	h.SetUserAgent("sdk/1.2.3")
	h.Set("Authorization", "Bearer "+g.secret)
	h.Set("Accept", "application/json")
	h.Set("Accept-Encoding", "gzip, deflate")
	h.Set("X-Stainless-Lang", "python")
	h.Set("X-Stainless-Package-Version", "1.2.3")
	r := g.p.acquireRequest()
	r.ctx, r.snapshot, r.route, r.began = ctx, g.p.snapshot.Load(), &builtin[0], time.Now()
	r.id = append(r.id[:0], "req_0123456789abcdef"...)
	r.body = append(r.body[:0], body...)
	return r, r.snapshot.set.Models["m"].Targets[0]
}

const chatBody = `{"model":"m","messages":[{"role":"system","content":"You are helpful."},{"role":"user","content":"Say \"hi\" to the \u00e9lite."}],"temperature":0.7,"max_tokens":256,"stream":false,"gateway":{"timeout":"30s","max_retries":1}}`

// TestNothingIsAllocatedOnTheWayUpstream: neither parsing, nor finding the key and the
// window's answer and a place at a target, nor building and writing the upstream request allocate.
func TestNothingIsAllocatedOnTheWayUpstream(t *testing.T) {
	g := start(t, oneModel, "127.0.0.1:1")
	for name, body := range map[string]string{"small": chatBody, "10 KB": strings.Replace(chatBody, "hi", strings.Repeat("word ", 2000), 1)} {
		r, _ := prepared(t, g, body)
		x := pool.Acquire()
		once := func() {
			if f := r.authenticate(); f != nil {
				t.Fatal(f.message)
			}
			r.fields = fields{models: r.fields.models[:0]}
			if f := r.readFields(); f != nil {
				t.Fatal(f.message)
			}
			r.models = r.models[:0]
			if f := r.findModels(); f != nil {
				t.Fatal(f.message)
			}
			if f := r.choose(); f != nil {
				t.Fatal(f.message)
			}
			if f := r.admit(); f != nil {
				t.Fatal(f.message)
			}
			a := r.take(r.models[0])
			r.exchange = x
			r.upstream = r.rewrite(r.upstream[:0], a.target)
			r.writeHead(a.target)
			r.leave()
			r.attempts, r.exchange = r.attempts[:0], nil
		}
		once()
		// Under the race detector sync.Pool drops things on purpose; nothing pooled is
		// taken in here.
		if n := testing.AllocsPerRun(200, once); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		pool.Release(x)
		r.releaseStruct()
	}
}

// FuzzRewrite holds reading and rewriting a body against encoding/json: both refuse or
// neither does, and what goes upstream says the same but for the model.
func FuzzRewrite(f *testing.F) {
	for _, body := range []string{chatBody, `{"model":"m"}`, `{"gateway":{"models":["m"]},"a":[1,2,{"model":"x"}]}`, `{"a":01,"model":"m"}`,
		`{"mod\u0065l":"m","k\u0001\"":1e400,"s":"\ud800"}`, `{"model":"m","model_id":"m","stream":true}`, "{\"model\":\"m\",\"x\":\"\xff\"}", `{"model":"m","a":{"a":1,"a":2}}`,
		`{"Model":"x","model":"m"}`, `{"model":"m","\u017ftream":true,"stream":false}`, `{"model":"m","deployment":"x"}`, `{"d\u0065ployment":"x","model_id":"m","DEPLOYMENT":1}`,
		`{"model":"m","stream":null,"gateway":null}`, `{"model":"m","model\u0000":"x"}`, "{\"model\":\"m\",\"model\xff\":\"x\",\"\ufeffmodel\":1}", `{"model":"m","x\ud800":1,"\ud83d\ude00":2,"a":"\ud800"}`,
		`{"model":"m","STREAM":true,"Gateway":{"models":["x"]},"max_to\u212aens":1}`, `{"gateway":{"models":["\u006d"],"max_retries":0},"stream":true}`,
		` { "model" : "m" , "gateway" : { } } `, `{"model":"m","":"","a":-0.0e+10}`, `{"model":"m","a":[[[[]]]],"b":nul}`, "{\"\":[{\"\":\"\x02\\b\"}]}", "{\n\t\"model\": \"m\",\n\t\"a\": \"\\n\"\n}"} {
		f.Add([]byte(body))
	}
	g, field := start(f, oneModel, "127.0.0.1:1"), start(f, fieldModel, "127.0.0.1:1")
	f.Fuzz(func(t *testing.T, body []byte) {
		want := checkRefusal(t, g, body)
		if out := g.rewritten(t, body, wantReadings{"model", "model_id"}); out != nil {
			checkRewritten(t, body, out, want)
		}
		field.rewritten(t, body, wantReadings{"deployment"})
	})
}

// checkRefusal holds what is refused as no JSON against encoding/json, which has read what it
// returns.
func checkRefusal(t *testing.T, g *gateway, body []byte) (want map[string]json.RawMessage) {
	r, _ := prepared(t, g, string(body))
	defer r.releaseStruct()
	fail := r.readFields()
	err := json.Unmarshal(body, &want)
	valid := err == nil && want != nil
	if nested := bytes.Count(body, []byte("[")) + bytes.Count(body, []byte("{")); valid && nested > jsontext.MaxNesting {
		return want // the oracle allows more
	}
	if refused := fail != nil && fail.kind == invalidJSON; refused == valid {
		t.Fatalf("refused %v (%+v), encoding/json: %v", refused, fail, err)
	}
	return want
}

// rewritten is what goes upstream of a body; nil if it is refused. Whoever reads it reads the
// target's model, in one of the fields at least, and the stream that was checked.
func (g *gateway) rewritten(t *testing.T, body []byte, fields wantReadings) []byte {
	r, target := prepared(t, g, string(body))
	defer r.releaseStruct()
	r.key = g.keys.Lookup([]byte(g.secret))
	if fail := r.readFields(); fail != nil {
		return nil
	}
	if fail := r.findModels(); fail != nil {
		return nil
	}
	if r.models[0].Name != "m" {
		return nil
	}
	out := bytes.Join(r.rewrite(nil, target), nil)
	fields.check(t, out, r.fields.stream)
	return out
}

// wantReadings are the fields in which a model's name may be.
type wantReadings []string

// check reads out as encoding/json reads it into a struct, and as maps do in which the first or the
// last of a name holds: with one member at most for each name, they are the same.
func (fields wantReadings) check(t *testing.T, out []byte, stream bool) {
	var got struct {
		Model      *string
		ModelID    *string `json:"model_id"`
		Deployment json.RawMessage
		Stream     bool
		Gateway    json.RawMessage
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	if got.Stream != stream || got.Gateway != nil {
		t.Errorf("%q is read as %+v", out, got)
	}
	named := 0
	read := map[string]*string{"model": got.Model, "model_id": got.ModelID}
	if fields[0] == "deployment" {
		text := strings.Trim(string(got.Deployment), `"`)
		read["deployment"] = &text
	}
	for _, field := range fields {
		if value := read[field]; value != nil {
			if named++; *value != "up-m" {
				t.Errorf("%q: %s is read as %q", out, field, *value)
			}
		}
	}
	if named == 0 || fields[0] != "model" && (got.Model != nil || got.ModelID != nil) {
		t.Errorf("%q is read as %+v", out, got)
	}
	for _, own := range append([]string{"stream", "gateway"}, fields...) {
		times := 0
		for _, name := range memberNames(out) {
			if strings.EqualFold(name, own) {
				times++
			}
		}
		if times > 1 {
			t.Errorf("%q has %s %d times", out, own, times)
		}
	}
}

// checkRewritten: what goes upstream says what the client has said, but for the model and without
// the gateway.
func checkRewritten(t *testing.T, body, out []byte, want map[string]json.RawMessage) {
	var got map[string]json.RawMessage
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%q became %q: %v", body, out, err)
	}
	_, named := want["model"]
	_, namedID := want["model_id"]
	delete(want, "gateway")
	if named || !namedID {
		want["model"] = json.RawMessage(`"up-m"`)
	}
	if namedID {
		want["model_id"] = json.RawMessage(`"up-m"`)
	}
	for name, value := range want {
		if !bytes.Equal(bytes.TrimSpace(value), bytes.TrimSpace(got[name])) {
			t.Errorf("%q: %q became %q", name, value, got[name])
		}
	}
	if len(got) != len(want) || !reflect.DeepEqual(memberNames(out), memberNamesWithout(body)) && named {
		t.Errorf("members of %q became those of %q", body, out)
	}
}

// memberNames are an object's names in order, repeated ones among them.
func memberNames(object []byte) (names []string) {
	d := json.NewDecoder(bytes.NewReader(object))
	_, _ = d.Token()
	for d.More() {
		name, _ := d.Token()
		text, _ := name.(string)
		names = append(names, text)
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return nil
		}
	}
	return names
}

func memberNamesWithout(object []byte) (names []string) {
	for _, n := range memberNames(object) {
		if n != "gateway" {
			names = append(names, n)
		}
	}
	return names
}

// FuzzPath: a path that is let through has, decoded as often as one likes, no segment that
// leads elsewhere.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/v1/models", "/v1/%2e%2e/x", "/a//b", "/a%2fb", "/%", "/..", "/.well-known/x", "/v1/models/a.b"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if !cleanPath([]byte(path)) {
			return
		}
		if strings.Contains(path, "//") || strings.ContainsAny(path, "\\\x00\r\n") {
			t.Fatalf("%q", path)
		}
		for segment := range strings.SplitSeq(path, "/") {
			if lower := strings.ReplaceAll(strings.ToLower(segment), "%2e", "."); lower == "." || lower == ".." {
				t.Fatalf("%q", path)
			}
		}
	})
}

func BenchmarkParseAndRewrite(b *testing.B) {
	g := start(b, oneModel, "127.0.0.1:1")
	text := strings.Repeat("It was the best of times, it was the worst of times. ", 20)
	escaped := strings.Repeat(`She said: \"It was the best of times.\"\n`, 25)
	for name, body := range map[string]string{
		"1MB with escapes": strings.Replace(chatBody, "hi", strings.Repeat(escaped, 1000), 1),
		"300B":             chatBody,
		"10KB":             strings.Replace(chatBody, "hi", text[:1000]+strings.Repeat(text[:900], 10), 1),
		"1MB":              strings.Replace(chatBody, "hi", strings.Repeat(text, 1000), 1),
	} {
		b.Run(name, func(b *testing.B) {
			r, target := prepared(b, g, body)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				r.fields = fields{models: r.fields.models[:0]}
				if f := r.readFields(); f != nil {
					b.Fatal(f.message)
				}
				r.upstream = r.rewrite(r.upstream[:0], target)
			}
			r.releaseStruct()
		})
	}
}

func BenchmarkAnnotate(b *testing.B) {
	member := []byte(`"gateway":{"model":"m","upstream":"up","attempts":1},`)
	buf := make([]byte, len(member), len(member)+len(okBody))
	buf = append(buf, okBody...)
	b.ReportAllocs()
	for b.Loop() {
		if got := annotate(buf, len(member), member, true); len(got) != len(buf) {
			b.Fatalf("%s", got)
		}
		buf[len(member)] = '{' // what it was before
	}
}
