package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/internal/upstreamtest"
)

const (
	plainRequest = `{"ref":"@1","time":"2026-01-02T03:04:05.678Z","request_id":"a","status":200,"key":"key_1","model":"m","upstream":"up",` +
		`"trail":"m@up;200;61","tokens_in":9,"tokens_out":20,"first_byte":0.0612,"total":1.2345,"overhead":0.0001,"key_name":"team","attempts":1}`
	failedRequest = `{"ref":"@2","time":"2026-01-02T03:04:05.678Z","request_id":"b","status":502,"key":"key_2","model":"a model with quite a long name","upstream":"up",` +
		`"trail":"m@up;500;3,a model with quite a long name@up;connection_lost;4","total":0.00725,"error":"upstream_failed","attempts":2}`
	refusedRequest = `{"ref":"@3","time":"2026-01-02T03:04:05.678Z","request_id":"c","status":404,"key":"key_1","key_name":"\u001b]0;x\u0007","model":"gone","total":0.0001,"error":"caller_unknown_model","attempts":0}`
)

// TestTailLines: lines are aligned, absent values are dashes, and what others named does nothing to a
// terminal.
func TestTailLines(t *testing.T) {
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	for _, test := range []struct {
		asJSON, colour bool
		want           string
	}{
		{true, false, plainRequest + "\n" + failedRequest + "\n" + refusedRequest + "\n"},
		{false, false, `03:04:05.678  200     m → up                    team          1.23s     61.2ms      9/20    1         -
03:04:05.678  502     a model with quite a long name → up  key_2         7.25ms    -           -       2         upstream_failed  m@up;500;3,a model with quite a long name@up;connection_lost;4
03:04:05.678  404     gone                                 "\x1b]0;x\a"  0.10ms    -           -       0         caller_unknown_model
`},
	} {
		var out strings.Builder
		lines := newTailLines(&out, test.asJSON)
		if err := lines.header(); err != nil || out.String() != "" {
			t.Errorf("%v: a header where there is no terminal: %s", err, &out)
		}
		for _, text := range []string{plainRequest, failedRequest, refusedRequest} {
			if err := lines.show([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != test.want {
			t.Errorf("got\n%s\nwant\n%s", out.String(), test.want)
		}
	}
	if err := newTailLines(new(strings.Builder), false).show([]byte(`[]`)); err != errNoSluice {
		t.Errorf("%v", err)
	}
	for seconds, want := range map[float64]string{0: "", 0.0001: "0.10ms", 0.009994: "9.99ms", 0.009996: "10.0ms", 0.0999: "99.9ms",
		0.1: "100ms", 0.99949: "999ms", 0.9996: "1.00s", 9.994: "9.99s", 9.996: "10.0s", 99.96: "100s", 3600: "3600s"} {
		if got := briefTime(seconds); got != want {
			t.Errorf("%v: %q, want %q", seconds, got, want)
		}
	}
}

// shell runs a command against an admin port.
func shell(ctx context.Context, out, notes *upstreamtest.Buffer, admin string, args ...string) error {
	p := Program{Stdout: out, Stderr: notes}
	return p.Run(ctx, append(args, "--admin", admin))
}

func event(w http.ResponseWriter, name, data string) {
	fmt.Fprintf(w, "event: %s\ndata: %s\n\n", name, data)
	_ = http.NewResponseController(w).Flush()
}

// TestTailOverARestart: what was lost and what happened to the connection is said on stderr, a gateway that
// drains is not followed again, and Ctrl-C is no failure.
func TestTailOverARestart(t *testing.T) {
	t.Setenv("SLUICE_ADMIN_TOKEN", "0123456789abcdef")
	var streams, looks atomic.Int32
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/readyz":
			if looks.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case r.URL.Path != "/api/requests/stream" || r.URL.RawQuery != "error=any&key=search+team&slow=2s" || r.Header.Get("Authorization") != "Bearer 0123456789abcdef":
			t.Errorf("%s %v", r.URL, r.Header)
		case streams.Add(1) == 1:
			fmt.Fprint(w, ": follows\n\n")
			event(w, "request", `{"n":1}`)
			event(w, "lost", `{"lost":7}`)
			event(w, "end", `{"reason":"the gateway drains"}`)
			event(w, "request", `{"n":"after the end"}`)
		case streams.Load() == 2:
			event(w, "request", `{"n":2}`)
			panic(http.ErrAbortHandler) // the process is killed
		default:
			event(w, "request", `{"n":3}`)
			<-r.Context().Done()
		}
	}))
	defer gateway.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var out, notes upstreamtest.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- shell(ctx, &out, &notes, gateway.URL, "tail", "--json", "--kind", "any", "--key", "search team", "--slow", "2s")
	}()
	const want = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n"
	for until := time.Now().Add(20 * time.Second); out.String() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("got %s\n%s", &out, &notes)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	said := regexp.MustCompile("^7 requests ended faster .*\nthe gateway drains; connecting again\nconnected again; .*\n" +
		"the connection to the gateway broke: .*; connecting again\nconnected again; .*\n$")
	if !said.MatchString(notes.String()) {
		t.Errorf("it said\n%s", &notes)
	}
	if looks.Load() != 3 {
		t.Errorf("%d looks whether it takes traffic", looks.Load())
	}
}

// TestTailThatCannotBegin ends at once.
func TestTailThatCannotBegin(t *testing.T) {
	t.Setenv("SLUICE_ADMIN_TOKEN", "0123456789abcdef")
	for _, test := range []struct {
		status     int
		body, want string
		code       int
	}{
		{400, `{"error":{"message":"error must be any or policy","param":"error"}}`, `sluice tail cannot take "5x" for --kind: must be any or policy; see sluice tail --help`, 2},
		{400, `{"error":{"message":"follow is not known","param":"follow"}}`, "follow is not known", 1},
		{401, `{"error":{"message":"send Authorization: Bearer ADMIN_TOKEN"}}`, "refuses the admin token; give the admin.token", 1},
		{429, `{"error":{"message":"16 clients follow"}}`, "16 clients follow", 1},
		{302, ``, "answered 302, and not as a sluice does", 1},
	} {
		gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		}))
		var out, notes upstreamtest.Buffer
		err := shell(t.Context(), &out, &notes, gateway.URL, "tail", "--kind", "5x")
		if err == nil || !strings.Contains(err.Error(), test.want) || ExitCode(err) != test.code || out.String()+notes.String() != "" {
			t.Errorf("%v, exit code %d, want %s\n%s%s", err, ExitCode(err), test.want, &out, &notes)
		}
		gateway.Close()
	}
	var out upstreamtest.Buffer
	if err := shell(t.Context(), &out, &out, "http://127.0.0.1:1", "tail"); err == nil || !strings.Contains(err.Error(), "cannot reach the admin port") {
		t.Error(err)
	}
}

// TestTailWhoseReaderLeaves ends, also while nothing is there to be printed, and says nothing.
func TestTailWhoseReaderLeaves(t *testing.T) {
	t.Setenv("SLUICE_ADMIN_TOKEN", "0123456789abcdef")
	for _, said := range []string{"event: request\ndata: " + plainRequest + "\n\n", ": keep-alive\n\n"} {
		gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, said)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}))
		left, to, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		left.Close()
		var notes upstreamtest.Buffer
		p := Program{Stdout: to, Stderr: &notes}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = p.Run(ctx, []string{"tail", "--admin", gateway.URL})
		if err != nil || ctx.Err() != nil || notes.String() != "" {
			t.Errorf("%v, %v %s", err, ctx.Err(), &notes)
		}
		cancel()
		to.Close()
		gateway.Close()
	}
}

// TestFollowPatience: a gateway that stays away is not waited for without end.
func TestFollowPatience(t *testing.T) {
	admin, err := newClient("http://127.0.0.1:1", "0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	f := follower{admin: admin, connected: true, lostAt: time.Now().Add(-followPatience - time.Second)}
	if err := f.run(t.Context()); err == nil || !strings.Contains(err.Error(), "did not come back within 5m0s: cannot reach the admin port") {
		t.Error(err)
	}
}
