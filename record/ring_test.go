package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func request(id string) *Request {
	return &Request{Began: time.Unix(1, 0), Took: time.Second, FirstByte: time.Second / 2, Status: 200, ID: id, Method: "POST", Path: "/v1/x",
		Key: "key_1", KeyName: "team", Model: "m", Upstream: "a", Tried: 2, Attempts: []Attempt{
			{Model: "m", Upstream: "b", Target: "bm", Cause: "connect_failed", Took: 100 * time.Millisecond},
			{Model: "m", Upstream: "a", Target: "am", Status: 200, ShowsStatus: true, After: 200 * time.Millisecond, Connect: 50 * time.Millisecond, Took: 300 * time.Millisecond}}}
}

// TestRingKeepsTheNewest in memory whose size does not change.
func TestRingKeepsTheNewest(t *testing.T) {
	g := newRing(Kept)
	for i := range 2*Kept + 5 {
		g.put(request(fmt.Sprint("r", i+1)))
	}
	list, more := g.Newest(0, 3, &Filter{})
	if !more || len(list) != 3 || list[0].ID != fmt.Sprint("r", 2*Kept+5) || list[2].Seq != 2*Kept+3 {
		t.Fatalf("%v, %+v", more, list[0])
	}
	if list, more = g.Newest(list[2].Seq, Kept, &Filter{}); more || len(list) != Kept-3 || list[0].Seq != 2*Kept+2 {
		t.Errorf("%v %d", more, len(list))
	}
	if g.ByID("r5") != nil || g.BySeq(5) != nil || g.BySeq(0) != nil {
		t.Error("a request is there that has been overwritten")
	}
	if e := g.ByID(fmt.Sprint("r", Kept+10)); e == nil || e.Path != "/v1/x" || e.Method != "POST" || len(e.Attempts) != 2 {
		t.Errorf("%+v", e)
	}
	if size := Kept * int(unsafe.Sizeof(slot{})); size > 10<<20 {
		t.Errorf("a ring has %d bytes", size)
	}
	if n := testing.AllocsPerRun(100, func() { g.put(list[0].plain()) }); n > 1 { // the plain value is the test's
		t.Errorf("%v allocations", n)
	}
}

func (e *Entry) plain() *Request { r := e.Request; return &r }

// TestRingWithManyWriters: nobody sees half a request, everything is seen in order or counted as lost.
func TestRingWithManyWriters(t *testing.T) {
	g := newRing(Kept)
	const writers, each = 4, 5000
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			r := request(strings.Repeat(fmt.Sprint(w), 100))
			r.Model = fmt.Sprint(w)
			for range each {
				g.put(r)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	seen, lost, from := uint64(0), uint64(0), uint64(0)
	look := func() {
		last := from
		n := uint64(0)
		from, n = g.Since(from, func(v View) {
			seen++
			if e := v.Entry(); e.Seq <= last || e.ID != strings.Repeat(e.Model, 100) {
				t.Errorf("%d after %d: %s %s", e.Seq, last, e.Model, e.ID)
			} else {
				last = e.Seq
			}
		})
		lost += n
	}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		look()
	}
	if seen+lost != writers*each || from != writers*each {
		t.Errorf("%d seen, %d lost, of %d; the last is %d", seen, lost, writers*each, from)
	}
}

// TestTextsAreBounded: a long text is cut, and takes no other's place.
func TestTextsAreBounded(t *testing.T) {
	g := newRing(Kept)
	r := request("an id")
	r.Path, r.Message, r.Cause = strings.Repeat("p", 5000), strings.Repeat("m", 5000), "because"
	r.Attempts = make([]Attempt, 32)
	r.Tried = 32
	g.put(r)
	e := g.ByID("an id")
	if e == nil || e.Path != strings.Repeat("p", 200) || len(e.Message) != 288 || e.Cause != "because" || len(e.Attempts) != keptAttempts || e.Tried != 32 {
		t.Errorf("%+v", e)
	}
}

func TestFilter(t *testing.T) {
	kinds := []string{"upstream_failed", "upstream_status", "policy_limit"}
	ok, failed := request("ok"), request("failed")
	failed.Status, failed.Error = 502, "upstream_failed"
	for query, want := range map[string]string{
		"": "ok failed", "key=key_1": "ok failed", "key=team": "ok failed", "key=x": "", "model=m": "ok failed", "model=n": "",
		"upstream=b": "ok failed", "upstream=c": "", "status=502": "failed", "status=5xx": "failed", "status=2XX": "ok", "status=404": "",
		"error=any": "failed", "error=upstream": "failed", "error=upstream_failed": "failed", "error=upstream_status": "", "error=policy": "",
		"slow=1s": "ok failed", "slow=1001ms": "", "slow=1s&status=200": "ok",
		"status=5": "!status", "status=50": "!status", "status=600": "!status", "status=0xx": "!status", "status=6xx": "!status", "status=abc": "!status", "status=-5x": "!status",
		"slow=0s": "!slow", "slow=1": "!slow", "error=nope": "!error", "error=up": "!error",
	} {
		q, _ := url.ParseQuery(query)
		f, err := ParseFilter(q, kinds)
		got := ""
		var e *FilterError
		if errors.As(err, &e) {
			got = "!" + e.Param
		} else {
			for _, r := range []*Request{ok, failed} {
				if f.Matches(r) {
					got = strings.TrimSpace(got + " " + r.ID)
				}
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if err := CheckParams(url.Values{"key": nil, "kee": nil}, "key"); err == nil || err.Error() != "kee is not known; known are key" {
		t.Errorf("%v", err)
	}
}

// TestDetail: the waterfall of a request's attempts.
func TestDetail(t *testing.T) {
	r := request("x\"y")
	r.Error, r.Message = "upstream_failed", "why"
	text, err := json.Marshal(Detail{owned(r)})
	var got struct {
		ID      string `json:"request_id"`
		KeyName string `json:"key_name"`
		Trail   string
		Message string
		Steps   []map[string]any
	}
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || got.ID != r.ID || got.KeyName != "team" || got.Message != "why" || got.Trail != "m@b;connect_failed;100,m@a;200;300" || len(got.Steps) != 2 {
		t.Fatalf("%v %s", err, text)
	}
	if s := got.Steps[1]; s["wait"] != 0.1 || s["connect"] != 0.05 || s["first_byte"] != 0.25 || s["answer"] != 0.5 || s["begins"] != 0.2 || s["target"] != "am" {
		t.Errorf("%v", s)
	}
}

func BenchmarkPut(b *testing.B) {
	g := newRing(Kept)
	b.RunParallel(func(pb *testing.PB) {
		r := request("req_0123456789abcdef0123456789abcdef")
		for pb.Next() {
			g.put(r)
		}
	})
}
