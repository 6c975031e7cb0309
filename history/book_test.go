package history

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/upstreamtest"
	"sluice/metrics"
	"sluice/record"
)

// gateway is what a Book reads.
type gateway struct {
	recorder *record.Recorder
	inFlight int64
	states   []metrics.UpstreamState
	log      bytes.Buffer
}

func (g *gateway) parts(path string) Parts {
	if g.recorder == nil {
		began := time.Now()
		g.recorder = record.New(record.Parts{Access: io.Discard, Dropped: func(int) {}, Clock: func() time.Duration { return time.Since(began) }})
	}
	return Parts{Ring: g.recorder.Ring, InFlight: func() int64 { return g.inFlight }, States: func() []metrics.UpstreamState { return g.states },
		Log: slog.New(slog.NewJSONHandler(&g.log, nil)), Path: path}
}

func (g *gateway) tell(change func(*record.Request)) {
	r := record.Request{ID: "r", Took: 2 * time.Second, FirstByte: time.Second, Status: 200, Key: "key_1", KeyName: "team", Model: "m", Upstream: "a",
		TokensIn: 7, TokensOut: 3, Tried: 1, Attempts: []record.Attempt{{Model: "m", Upstream: "a", Status: 200, Took: time.Second}}}
	if change != nil {
		change(&r)
	}
	g.recorder.Tell(&r, 0, nil)
}

func failing(r *record.Request) {
	r.Status, r.Error = 502, "upstream_failed"
	r.Attempts = []record.Attempt{{Model: "m", Upstream: "a", Cause: "connect_failed"}, {Model: "m", Upstream: "b", Cause: "client_left", Ended: true}}
	r.Upstream, r.Message, r.Tried = "b", "why", 2
}

// of is a column of one series, its values added up.
func of(a *Answer, name, column string) (sum float64) {
	for _, l := range a.Data {
		if l.Name == name {
			for _, v := range l.Value[column] {
				if !math.IsNaN(v) {
					sum += v
				}
			}
		}
	}
	return sum
}

// TestBook: what is recorded is added up by everything that it is about, at every step length.
func TestBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gateway
		b := New(g.parts(""))
		stop := b.Start()
		for range 90 {
			g.tell(nil)
			g.tell(failing)
			time.Sleep(10 * time.Second)
		}
		for _, r := range Ranges() {
			for _, want := range []struct {
				by           By
				name, column string
				sum          float64
			}{
				{Total, "total", "requests", 180}, {Total, "total", "errors_upstream", 90}, {Total, "total", "tokens_out", 540},
				{Model, "m", "requests", 180}, {Upstream, "a", "requests", 180}, {Upstream, "a", "errors_upstream", 90}, {Upstream, "b", "requests", 90},
				{Upstream, "b", "errors_upstream", 0}, {Target, "m at a", "requests", 180}, {Key, "key_1", "tokens_in", 1260}, {Error, "upstream_failed", "requests", 90},
			} {
				a := b.Answer(Query{Range: r, By: want.by, Top: 8}, time.Now())
				sum := want.sum
				if r == "1m" {
					sum *= 5.0 / 90 // its sixth step has just begun
				}
				// The oldest of fifteen minutes' steps is about to go.
				if got := of(a, want.name, want.column); got > sum || got < sum*0.98 {
					t.Errorf("%s of %s in %s is %v, not %v", want.column, want.name, r, got, sum)
				}
			}
		}
		a := b.Answer(Query{Range: "1h", By: Key, Names: []string{"key_1", "nobody"}, Top: 1}, time.Now())
		if len(a.Data) != 1 || a.Data[0].Label != "team" || len(a.Times) != 360 || a.Times[1]-a.Times[0] != 10 || a.Left != 0 {
			t.Errorf("%+v", a)
		}
		for _, v := range a.Data[0].Value["first_byte_p99"] {
			if !math.IsNaN(v) && (v < 0.7 || v > 1.4) { // a second, to half a bucket
				t.Errorf("a first byte after %v s", v)
			}
		}
		text, err := json.Marshal(a)
		if err != nil || !strings.Contains(string(text), "null") || strings.Contains(string(text), "breaker") {
			t.Errorf("%v %s", err, text)
		}
		stop()
		time.Sleep(8 * 24 * time.Hour)
		if a := b.Answer(Query{Range: "7d", By: Key, Top: 8}, time.Now()); len(a.Data) != 0 {
			t.Errorf("after eight days: %+v", a.Data)
		}
		if b.sweep(time.Now()); b.Bytes() > 0 {
			n := b.Bytes()
			t.Errorf("nothing is left, and has %d bytes", n)
		}
	})
}

// TestMarks: what is shown on the time axis, and since when a target is not well.
func TestMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gateway
		b := New(g.parts(""))
		state := func(breaker int, refused bool) {
			g.states = []metrics.UpstreamState{{Name: "a", InFlight: 3, Targets: []metrics.TargetState{{Model: "m", Name: "am", Breaker: breaker, CredentialRefused: refused, InFlight: 2}}}}
			b.Sample(time.Now())
		}
		time.Sleep(time.Minute)
		g.tell(failing)
		b.Look(time.Now())
		time.Sleep(time.Second)
		g.tell(failing)
		b.Look(time.Now())
		time.Sleep(time.Second)
		state(2, false)
		began := time.Now()
		time.Sleep(10 * time.Second)
		state(1, true)
		if since := b.Since("m", "a", "am"); !since.Equal(began) {
			t.Errorf("since %v, not %v", since, began)
		}
		time.Sleep(time.Second)
		state(0, false)
		if since := b.Since("m", "a", "am"); !since.IsZero() {
			t.Errorf("since %v", since)
		}
		g.states = nil
		b.Mark("reload", "configuration 2 took effect")
		var got []string
		a := b.Answer(Query{Range: "15m", By: Target, Top: 8}, time.Now())
		for _, m := range a.Marks {
			got = append(got, m.Kind)
		}
		if s := strings.Join(got, " "); s != "start errors breaker credential recovered reload" {
			t.Errorf("%s", s)
		}
		if of(a, "m at a", "breaker") < 2 || of(a, "m at a", "in_flight") < 2 {
			t.Errorf("%+v", a.Data)
		}
		for range 2 * maxMarks {
			b.Mark("reload", strings.Repeat("x", 1000))
		}
		if n := len(b.marks); n != maxMarks || len(b.marks[0].Text) != maxMarkText {
			t.Errorf("%d marks", n)
		}
		groups := b.Groups()
		if len(groups) != 1 || groups[0].Count != 2 || groups[0].Message != "why" || groups[0].Upstream != "b" {
			t.Errorf("%+v", groups)
		}
	})
}

// TestBookIsBounded: many names cost no more than few, and a name with many requests gets a series all the same.
func TestBookIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gateway
		b := New(g.parts(""))
		if n := b.Bytes(); n != 0 {
			t.Errorf("nothing has counted, and has %d bytes", n)
		}
		steps := 30
		if upstreamtest.RaceDetector {
			steps = 14
		}
		for step := range steps {
			for i := range 1000 {
				g.tell(func(r *record.Request) {
					r.Key, r.Model, r.Error = fmt.Sprint("key_", i), fmt.Sprint("m", i), fmt.Sprint("upstream_", i)
					r.Upstream = fmt.Sprint("u", i)
					r.Attempts = []record.Attempt{{Model: r.Model, Upstream: r.Upstream, Cause: "status"}}
				})
			}
			if step > 10 {
				for range 500 {
					g.tell(func(r *record.Request) { r.Key = "key_heavy" })
				}
			}
			b.Look(time.Now())
			time.Sleep(10 * time.Second)
		}
		for by := range b.tables {
			if n := len(b.tables[by].tracks); n > most[by] {
				t.Errorf("%d series by %s", n, Names[by])
			}
		}
		if len(b.groups) > maxGroups || b.Bytes() > MemoryLimit || MemoryLimit > 64<<20 {
			t.Errorf("%d groups, %d bytes of %d", len(b.groups), b.Bytes(), MemoryLimit)
		}
		a := b.Answer(Query{Range: "15m", By: Key, Top: 1}, time.Now())
		if a.Data[0].Name != Others && a.Data[0].Name != "key_heavy" {
			t.Errorf("%+v", a.Data[0])
		}
		if a = b.Answer(Query{Range: "15m", By: Key, Names: []string{"key_heavy"}, Top: 1}, time.Now()); len(a.Data) != 1 {
			t.Error("the key with most requests has no series")
		}
		if a.Lost != 0 {
			t.Errorf("%d requests were lost", a.Lost)
		}
	})
}

// TestGaugesAreReadOnABusyMachine: a reading that took long is not the last for minutes.
func TestGaugesAreReadOnABusyMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gateway
		parts, readings := g.parts(""), 0
		parts.InFlight = func() int64 {
			if readings++; readings == 1 {
				time.Sleep(time.Second)
			}
			return 1
		}
		stop := New(parts).Start()
		time.Sleep(time.Minute)
		stop()
		if readings < 50 {
			t.Errorf("%d readings in a minute", readings)
		}
	})
}

// TestKept: the long series survive a restart, and a file that is broken costs nothing but them.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "keys.db.series")
		var g gateway
		b := New(g.parts(path))
		for range 20 {
			g.tell(nil)
			b.Look(time.Now())
			time.Sleep(7 * time.Minute)
		}
		g.tell(nil)
		b.Look(time.Now())
		b.Save()
		time.Sleep(5 * time.Second)
		again := New(new(gateway).parts(path))
		for by := Total; by < kinds; by++ {
			for _, r := range []string{"24h", "7d"} {
				was, is := b.Answer(Query{Range: r, By: by, Top: 8}, time.Now()), again.Answer(Query{Range: r, By: by, Top: 8}, time.Now())
				for _, l := range was.Data {
					if of(was, l.Name, "requests") != of(is, l.Name, "requests") || of(was, l.Name, "duration_p50") != of(is, l.Name, "duration_p50") {
						t.Errorf("%s of %s is another", r, l.Name)
					}
				}
			}
		}
		if was, is := b.Answer(Query{Range: "24h"}, time.Now()).Since, again.Answer(Query{Range: "24h"}, time.Now()).Since; is-was > 60 || was-is > 60 {
			t.Errorf("counts since %d, and after the restart since %d", was, is)
		}
		if since := again.Answer(Query{Range: "1h"}, time.Now()).Since; since < time.Now().Unix()-10 {
			t.Errorf("ten-second steps since %d", since)
		}
		if n := len(again.marks); n != 2 { // both starts
			t.Errorf("%d marks", n)
		}
		good, err := os.ReadFile(path)
		if info, _ := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Fatal(err, info.Mode())
		}
		flipped := bytes.Clone(good)
		flipped[len(flipped)/2] ^= 1
		for name, text := range map[string][]byte{"empty": {}, "cut": good[:len(good)-1], "changed": flipped, "other": []byte("a text"), "head": []byte(keptHead)} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			var g gateway
			if b := New(g.parts(path)); b.Bytes() != 0 || !strings.Contains(g.log.String(), "begin anew") {
				t.Errorf("%s: %s", name, g.log.String())
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		var fresh gateway
		New(fresh.parts(path))
		var nowhere gateway
		lost := New(nowhere.parts(filepath.Join(path, "x", "y")))
		if lost.Save(); fresh.log.Len() > 0 || !strings.Contains(nowhere.log.String(), "cannot be kept") {
			t.Errorf("%s %s", fresh.log.String(), nowhere.log.String())
		}
	})
}

// TestSavesDoNotMix: the file is whole though several write it at once, as before a successor begins.
func TestSavesDoNotMix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.db.series")
	var g gateway
	b := New(g.parts(path))
	g.tell(nil)
	b.Look(time.Now())
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 8 {
				b.Save()
			}
		})
	}
	all.Wait()
	if _, err := readKept(path); err != nil || g.log.Len() > 0 {
		t.Errorf("%v %s", err, g.log.String())
	}
}

func TestTimesArePacked(t *testing.T) {
	for d := time.Microsecond; d < 10*time.Hour; d = d*3/2 + 1 {
		if got := unpackTime(packTime(d)); math.Abs(got/d.Seconds()-1) > 0.001 {
			t.Errorf("%v became %v s", d, got)
		}
	}
	if packTime(0) != 0 || !math.IsNaN(unpackTime(0)) {
		t.Error("no time")
	}
	var h histogram
	for i := range 100 {
		h.observe(time.Duration(i+1) * 10 * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 0.5, 0.99: 0.99} {
		if got := h.quantile(q).Seconds(); math.Abs(got/want-1) > 0.25 {
			t.Errorf("the quantile %v is %v, not %v", q, got, want)
		}
	}
}
