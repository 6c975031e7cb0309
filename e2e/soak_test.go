//go:build soak

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

var (
	soakTime    = flag.Duration("soaktime", time.Minute, "how long TestSoak runs")
	soakClients = flag.Int("soakclients", 200, "how many clients it has")
)

func init() {
	// toxiproxy does not end all of its own.
	for _, f := range []string{"/toxics.(*ToxicStub).Run", ".(*ToxicLink).read", ".(*ToxicLink).write"} {
		othersGoroutines = append(othersGoroutines, goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2"+f))
	}
}

// toxics are what the way to an upstream does to a part of its connections.
var toxics = map[string][]string{
	"latency": {`{"type":"latency","toxicity":0.5,"attributes":{"latency":200,"jitter":200}}`},
	"reset":   {`{"type":"reset_peer","toxicity":0.3,"attributes":{"timeout":30}}`},
	"resetup": {`{"type":"reset_peer","stream":"upstream","toxicity":0.3,"attributes":{"timeout":0}}`},
	"lingers": {`{"type":"slow_close","toxicity":0.5,"attributes":{"delay":700}}`, `{"type":"limit_data","toxicity":0.3,"attributes":{"bytes":9000}}`},
	"cut":     {`{"type":"limit_data","toxicity":0.6,"attributes":{"bytes":30000}}`},
	"stall":   {`{"type":"timeout","toxicity":0.2,"attributes":{"timeout":1500}}`},
	"slices":  {`{"type":"slicer","toxicity":1,"attributes":{"average_size":700,"size_variation":600,"delay":50}}`},
	"narrow":  {`{"type":"bandwidth","toxicity":0.5,"attributes":{"rate":300}}`},
}

// soakAnswer is what the provider is asked for, and what it must have said when it comes
// back whole.
type soakAnswer struct {
	Nonce string `json:"nonce"`
	Size  int    `json:"size"`
	Fault int    `json:"fault"` // of a hundred
}

func (a soakAnswer) text() string {
	return strings.Repeat(hex.EncodeToString([]byte(a.Nonce))+".", a.Size/33+1)[:a.Size]
}

// soakProvider answers rightly, or with a fault of its own.
func soakProvider(w http.ResponseWriter, r *http.Request) {
	var ask struct {
		soakAnswer
		Stream bool `json:"stream"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &ask)
	}
	if err != nil {
		http.Error(w, "the request broke off", 400)
		return
	}
	text := ask.text()
	cutAt := -1
	fault := 0
	if rand.IntN(100) < ask.Fault { // a retry of the same request may fare better
		fault = 1 + rand.IntN(6)
	}
	switch fault {
	case 1:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader([]int{429, 500, 503}[rand.IntN(3)])
		_, _ = io.WriteString(w, `{"error":{"message":"the provider failed","type":"server_error"}}`)
		return
	case 2:
		panic(http.ErrAbortHandler)
	case 3:
		select {
		case <-r.Context().Done():
		case <-time.After(1500 * time.Millisecond):
		}
	case 4, 5:
		cutAt = rand.IntN(len(text) + 1)
	case 6:
		if ask.Stream {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: {\"error\":{\"message\":\"the provider failed\"}}\n\n")
			return
		}
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/speech"):
		w.Header().Set("Content-Type", "audio/mpeg")
		if rand.IntN(2) == 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		}
		soakWrite(w, text, cutAt, func(piece string) string { return piece })
	case ask.Stream:
		w.Header().Set("Content-Type", "text/event-stream")
		soakWrite(w, text, cutAt, func(piece string) string {
			return fmt.Sprintf("data: {\"choices\":[{\"delta\":{\"content\":%q},\"finish_reason\":null}]}\n\n", piece)
		})
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	default:
		w.Header().Set("Content-Type", "application/json")
		whole := fmt.Sprintf(`{"choices":[{"message":{"content":%q},"finish_reason":"stop"}]}`, text)
		if rand.IntN(2) == 0 {
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
		}
		soakWrite(w, whole, cutAt, func(piece string) string { return piece })
	}
}

// soakWrite writes text in pieces, up to cutAt if that is not negative.
func soakWrite(w http.ResponseWriter, text string, cutAt int, piece func(string) string) {
	flush := http.NewResponseController(w)
	for at := 0; at < len(text); {
		n := min(len(text)-at, 1+rand.IntN(2+len(text)/8))
		if cutAt >= 0 && at+n > cutAt {
			_ = flush.Flush()
			panic(http.ErrAbortHandler)
		}
		if _, err := io.WriteString(w, piece(text[at:at+n])); err != nil {
			return
		}
		at += n
		if rand.IntN(2) == 0 {
			_ = flush.Flush()
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
		}
	}
}

// TestSoak: clients send what they like over ways that fail as they like. Every answer is
// right, or says that it is not; none is cut and looks complete.
func TestSoak(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(soakProvider))
	defer up.Close()
	dir := t.TempDir()
	text, models := soakConfig(t, dir, strings.TrimPrefix(up.URL, "http://"))
	n := beginIn(t, dir, text)
	s := &soak{t: t, n: n, models: models, key: n.key(`{"name":"soak","limits":{"requests":100000000,"tokens":1000000000,"concurrent":100000}}`), counts: map[string]int{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *soakClients, DisableCompression: true}}}
	before := n.goroutines()
	ctx, cancel := context.WithTimeout(context.Background(), *soakTime)
	defer cancel()
	var wg sync.WaitGroup
	for range *soakClients {
		wg.Go(func() {
			for ctx.Err() == nil && !t.Failed() {
				s.ask()
			}
		})
	}
	wg.Wait()
	s.client.CloseIdleConnections()

	for _, kind := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%7d %s", s.counts[kind], kind)
	}
	for _, kind := range []string{"right: plain", "right: stream", "right: audio", "right, not at the first attempt", "stream that says it is broken", "audio that is visibly cut", "client left"} {
		if s.counts[kind] == 0 {
			t.Errorf("there was no %s", kind)
		}
	}
	_, metrics := n.call("GET", n.admin+"/metrics", adminToken, "")
	for line := range strings.SplitSeq(metrics, "\n") {
		name, value, _ := strings.Cut(line, " ")
		for _, gauge := range []string{"sluice_in_flight", "sluice_upstream_in_flight{", "sluice_panics_total"} {
			if strings.HasPrefix(name, gauge) && value != "0" {
				t.Errorf("at the end %s", line)
			}
		}
	}
	var upstreams struct {
		Data []struct {
			Waiting     int
			MaxInFlight int `json:"max_in_flight"`
		}
	}
	_, list := n.call("GET", n.admin+"/api/upstreams", adminToken, "")
	if err := json.Unmarshal([]byte(list), &upstreams); err != nil || len(upstreams.Data) == 0 {
		t.Errorf("%s, %v", list, err)
	}
	for _, u := range upstreams.Data {
		if u.Waiting != 0 || u.MaxInFlight != 15 {
			t.Errorf("at the end %+v", u)
		}
	}
	// What no request needs any more ends; for each upstream one goroutine closes idle connections.
	within(t, time.Minute, "the goroutines of requests have ended", func() bool {
		return n.goroutines() <= before+len(upstreams.Data)
	})
}

// goroutines is how many the process has.
func (n *node) goroutines() int {
	n.t.Helper()
	_, metrics := n.call("GET", n.admin+"/metrics", adminToken, "")
	number, err := strconv.Atoi(series(metrics, `\ngo_goroutines (\d+)\n`)[0])
	if err != nil {
		n.t.Fatal(err)
	}
	return number
}

// soakConfig puts a toxic way to the provider behind an upstream each, and makes models of
// them: the upstream alone, with a fallback, and all as targets of one.
func soakConfig(t *testing.T, dir, provider string) (text string, models []string) {
	var upstreams, targets, list strings.Builder
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	add := func(name, address string) {
		fmt.Fprintf(&upstreams, "  %s: {base_url: \"http://%s/v1\", max_in_flight: 15, queue_timeout: 300ms}\n", name, address)
		fmt.Fprintf(&targets, "{upstream: %s}, ", name)
		fmt.Fprintf(&list, "  only-%s: {targets: [{upstream: %s}], max_retries: 1}\n", name, name)
		fmt.Fprintf(&list, "  safe-%s: {targets: [{upstream: %s}], max_retries: 1, fallbacks: [only-clean]}\n", name, name)
		models = append(models, "only-"+name, "safe-"+name)
	}
	for _, name := range slices.Sorted(maps.Keys(toxics)) {
		p := toxiproxy.NewProxy(server, name, "127.0.0.1:0", provider)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Stop)
		for i, toxic := range toxics[name] {
			named := strings.Replace(toxic, "{", fmt.Sprintf(`{"name":"%s%d",`, name, i), 1)
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(named)); err != nil {
				t.Fatal(err)
			}
		}
		add(name, p.Listen)
	}
	add("clean", provider)
	add("down", "127.0.0.1:1")
	models = append(models, "mixed")
	return fmt.Sprintf(`
listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0, token: %s}
keys: {store: %s}
timeouts: {connect: 500ms, first_byte: 1s, response: 2s, total: 6s, stream_idle: 1s, stream_keepalive: 300ms, shutdown: 20s}
retry: {max_retries: 3, base: 10ms, max: 100ms}
breaker: {failures: 20, pause: 100ms}
upstreams:
%smodels:
  mixed: {targets: [%s]}
%s`, adminToken, filepath.Join(dir, "keys.db"), upstreams.String(), strings.TrimSuffix(targets.String(), ", "), list.String()), models
}

type soak struct {
	t      *testing.T
	n      *node
	client *http.Client
	models []string
	key    string

	mu     sync.Mutex
	counts map[string]int
}

func (s *soak) count(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[fmt.Sprintf(format, args...)]++
}

func (s *soak) model() string { return s.models[rand.IntN(len(s.models))] }

// ask sends one request and judges its answer.
func (s *soak) ask() {
	want := soakAnswer{Nonce: fmt.Sprintf("%016x", rand.Uint64()), Size: 1 << rand.IntN(18), Fault: 30 * rand.IntN(3)}
	path, stream := "/v1/chat/completions", rand.IntN(2) == 0
	if rand.IntN(6) == 0 {
		path, stream = "/v1/audio/speech", false
	}
	ask := map[string]any{"model": s.model(), "stream": stream, "nonce": want.Nonce, "size": want.Size, "fault": want.Fault,
		"padding": strings.Repeat("p", 1<<rand.IntN(17))}
	if rand.IntN(4) == 0 {
		ask["gateway"] = map[string]any{"models": []string{s.model(), s.model(), s.model()}}
	}
	body, _ := json.Marshal(ask)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	leaves := rand.IntN(20) == 0
	if leaves {
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(rand.IntN(300))*time.Millisecond)
	}
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", s.n.data+path, bytes.NewReader(body))
	req.Header.Set("Authorization", "Bearer "+s.key)
	resp, err := s.client.Do(req)
	var got []byte
	if err == nil {
		got, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	switch {
	case leaves && ctx.Err() != nil:
		s.count("client left")
	case resp == nil:
		s.wrong(ask, nil, nil, fmt.Errorf("no answer: %w", err))
	default:
		kind, jerr := judge(resp, got, err, want)
		if jerr != nil {
			s.wrong(ask, resp, got, jerr)
			return
		}
		s.count("%s", kind)
		if strings.HasPrefix(kind, "right") && resp.Header.Get("X-Sluice-Attempts") != "1" {
			s.count("right, not at the first attempt")
		}
	}
}

func (s *soak) wrong(ask map[string]any, resp *http.Response, got []byte, err error) {
	delete(ask, "padding")
	var head http.Header
	if resp != nil {
		head = resp.Header
	}
	s.t.Errorf("%v: %v\n%v\n%.300q … %.300q (%d bytes)", ask, err, head, got, got[max(0, len(got)-300):], len(got))
}

// judge says what kind of answer it is, or what is wrong with it.
func judge(resp *http.Response, got []byte, readErr error, want soakAnswer) (string, error) {
	contentType := resp.Header.Get("Content-Type")
	switch {
	case resp.StatusCode != 200:
		return judgeError(resp, got, readErr)
	case contentType == "audio/mpeg" && readErr != nil:
		if !strings.HasPrefix(want.text(), string(got)) {
			return "", errors.New("what came before the cut is wrong")
		}
		return "audio that is visibly cut", nil
	case contentType == "text/event-stream":
		kind, err := judgeStream(resp, got, want)
		if whole := strings.HasPrefix(kind, "right"); err == nil && whole != (readErr == nil) {
			return "", fmt.Errorf("a stream that is %q ended with %v", kind, readErr)
		}
		return kind, err
	case readErr != nil:
		return "", fmt.Errorf("the answer broke off: %w", readErr)
	case contentType == "audio/mpeg":
		if string(got) != want.text() {
			return "", errors.New("the audio is wrong, or cut and looks whole")
		}
		return "right: audio", nil
	}
	var v struct {
		Gateway *struct{ Attempts int }
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal(got, &v); err != nil {
		return "", err
	}
	if len(v.Choices) != 1 || v.Choices[0].Message.Content != want.text() {
		return "", errors.New("the content is wrong")
	}
	if v.Gateway == nil || fmt.Sprint(v.Gateway.Attempts) != resp.Header.Get("X-Sluice-Attempts") {
		return "", errors.New("the gateway's member is wrong")
	}
	return "right: plain", nil
}

func judgeError(resp *http.Response, got []byte, readErr error) (string, error) {
	var v struct {
		Error *struct{ Message, Code string }
	}
	if readErr != nil {
		return "", fmt.Errorf("an error that broke off: %w", readErr)
	}
	if err := json.Unmarshal(got, &v); err != nil || v.Error == nil {
		return "", errors.New("an error that does not look like one")
	}
	switch trail := resp.Header.Get("X-Sluice-Trail"); {
	case !slices.Contains([]int{429, 500, 502, 503, 504}, resp.StatusCode):
		return "", errors.New("an unexpected status")
	case v.Error.Code == "internal":
		return "", errors.New("a fault of the gateway's own")
	case trail == "" && v.Error.Code != "no_healthy_upstream" && v.Error.Code != "overloaded":
		return "", errors.New("an error without a trail")
	}
	return fmt.Sprintf("error: %d %s", resp.StatusCode, v.Error.Code), nil
}

func judgeStream(resp *http.Response, got []byte, want soakAnswer) (string, error) {
	var content strings.Builder
	done, failed, events := false, "", 0
	lines := bufio.NewScanner(bytes.NewReader(got))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		if done || failed != "" {
			return "", errors.New("an event after the end")
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		var v struct {
			Gateway json.RawMessage
			Error   *struct{ Code string }
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &v); err != nil {
			return "", err
		}
		if v.Error != nil {
			failed = v.Error.Code
			continue
		}
		if events++; (events == 1) != (v.Gateway != nil) {
			return "", errors.New("the gateway's member is not in the first event, or in another")
		}
		for _, c := range v.Choices {
			content.WriteString(c.Delta.Content)
		}
	}
	switch {
	case done == (failed != ""):
		return "", errors.New("the stream has neither a terminator nor an error, or both")
	case done && content.String() != want.text(), !strings.HasPrefix(want.text(), content.String()):
		return "", errors.New("the content is wrong")
	case done:
		return "right: stream", nil
	case failed != "upstream_stream_broken" && failed != "upstream_timeout" && failed != "upstream_error":
		return "", fmt.Errorf("an error event that says %q", failed)
	}
	return "stream that says it is broken", nil
}
