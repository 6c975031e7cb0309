package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"sluice/history"
	"sluice/record"
)

const (
	// followEvery is how often a follower is told of the requests that have ended.
	followEvery = 50 * time.Millisecond
	// followWrite is how long a follower may take nothing, and followSilence after what silence it gets a
	// comment.
	followWrite   = 30 * time.Second
	followSilence = 15 * time.Second
)

var filterParams = []string{"key", "model", "upstream", "status", "error", "slow"}

func (a *Admin) parseFilter(q url.Values, others ...string) (record.Filter, error) {
	if err := record.CheckParams(q, append(others, filterParams...)...); err != nil {
		return record.Filter{}, err
	}
	return record.ParseFilter(q, a.proxy.Recorder().Kinds())
}

// listRequests shows requests that are over, the newest first.
func (a *Admin) listRequests(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("follow") == "true" {
		a.followRequests(w, r)
		return
	}
	f, err := a.parseFilter(q, "after", "limit", "follow")
	var before uint64
	if text := q.Get("after"); err == nil && text != "" {
		var ok bool
		if before, ok = record.ParseRef(text); !ok {
			err = badParam("after", `must be the ref of a request, such as "@123"`)
		}
	}
	limit := 0
	if err == nil {
		limit, err = wholeParam(q, "limit", 1, maxPage, defaultPage)
	}
	if err != nil {
		refuseParam(w, err)
		return
	}
	ring := a.proxy.Recorder().Ring
	list, more := ring.Newest(before, limit, &f)
	writeJSON(w, 200, map[string]any{"object": "list", "data": list, "has_more": more, "kept": record.Kept, "total": ring.Last()})
}

// showRequest shows one request with its attempts. The id is its request id, of which the newest counts, or
// its ref.
func (a *Admin) showRequest(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	ring := a.proxy.Recorder().Ring
	var e *record.Entry
	if seq, is := record.ParseRef(id); is {
		e = ring.BySeq(seq)
	} else {
		e = ring.ByID(id)
	}
	if e == nil {
		writeError(w, 404, "not_found", "", fmt.Sprintf("no request with this id is among the last %d that are kept", record.Kept))
		return
	}
	writeJSON(w, 200, record.Detail{Entry: e})
}

// followRequests sends requests as they end, as server-sent events: request, lost, end.
func (a *Admin) followRequests(w http.ResponseWriter, r *http.Request) {
	f, err := a.parseFilter(r.URL.Query(), "follow")
	if err != nil {
		refuseParam(w, err)
		return
	}
	if !a.follows.enter() {
		w.Header().Set("Retry-After", "1")
		writeError(w, 429, "rate_limit_exceeded", "", fmt.Sprintf("%d clients follow the requests already; end one of them", a.follows.most))
		return
	}
	defer a.follows.leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(200)
	ring := a.proxy.Recorder().Ring
	l := &listener{w: w, control: http.NewResponseController(w), filter: f, ring: ring, seen: ring.Last()}
	l.comment("follows")
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for l.err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-a.stop:
			l.event("end", map[string]string{"reason": "the admin port closes"})
			l.flush()
			return
		case <-tick.C:
			if l.look(); !a.proxy.Ready() {
				l.event("end", map[string]string{"reason": "the gateway drains"})
				l.flush()
				return
			}
		}
	}
}

// listener is one client that follows the requests. What it has not been told yet is in the ring, so a
// slow one costs nothing; what is overwritten meanwhile is counted, and told.
type listener struct {
	w       http.ResponseWriter
	control *http.ResponseController
	filter  record.Filter
	ring    *record.Ring
	seen    uint64
	told    time.Time
	err     error
}

// look tells what has ended since the last look.
func (l *listener) look() {
	var ended []*record.Entry
	last, lost := l.ring.Since(l.seen, func(v record.View) {
		if l.filter.Matches(v.Request()) {
			ended = append(ended, v.Entry())
		}
	})
	l.seen = last
	if lost > 0 {
		l.event("lost", map[string]uint64{"lost": lost})
	}
	for _, e := range ended {
		l.event("request", e)
	}
	if time.Since(l.told) > followSilence {
		l.comment("keep-alive")
	} else if lost > 0 || len(ended) > 0 {
		l.flush()
	}
}

func (l *listener) event(name string, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: an event of our own is not JSON: " + err.Error())
	}
	l.write(fmt.Sprintf("event: %s\ndata: %s\n\n", name, data))
}

func (l *listener) comment(text string) {
	l.write(": " + text + "\n\n")
	l.flush()
}

func (l *listener) write(text string) {
	if l.err == nil {
		l.told = time.Now()
		_ = l.control.SetWriteDeadline(l.told.Add(followWrite))
		_, l.err = l.w.Write([]byte(text))
	}
}

func (l *listener) flush() {
	if l.err == nil {
		l.err = l.control.Flush()
	}
}

// listErrors shows the last requests of each kind of error, the newest first, and all errors since the start
// in groups.
func (a *Admin) listErrors(w http.ResponseWriter, r *http.Request) {
	f, err := a.parseFilter(r.URL.Query())
	if err != nil {
		refuseParam(w, err)
		return
	}
	a.series.Look(time.Now())
	data := []*record.Entry{}
	for _, e := range a.proxy.Recorder().LastErrors() {
		if f.Matches(&e.Request) {
			data = append(data, e)
		}
	}
	groups := []history.Group{}
	for _, g := range a.series.Groups() {
		like := record.Request{Error: g.Error, Model: g.Model, Upstream: g.Upstream, Status: g.Status, Key: f.Key, Took: f.Slow}
		if f.Matches(&like) {
			groups = append(groups, g)
		}
	}
	writeJSON(w, 200, map[string]any{"object": "list", "data": data, "groups": groups})
}
