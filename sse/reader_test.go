package sse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/growth"
)

// pieces is a Source that gives one piece a read.
type pieces struct {
	left  [][]byte
	ready bool
}

func (p *pieces) Ready() bool { return p.ready && len(p.left) > 0 }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	if p.left[0] = p.left[0][n:]; len(p.left[0]) == 0 {
		p.left = p.left[1:]
	}
	return n, nil
}

// seen is what a decoder makes of an event.
type seen struct{ Name, Data string }

// read runs a Reader over the pieces and returns what a decoder sees and all raw bytes.
func read(t testing.TB, max int, parts ...[]byte) (events []seen, raw []byte, err error) {
	whole := len(bytes.Join(parts, nil))
	var r Reader
	r.Reset(&pieces{left: parts}, max, nil, nil)
	var e Event
	for {
		if err = r.Next(&e); err != nil {
			break
		}
		raw = append(raw, e.Raw...)
		if e.Whole != (len(raw) < whole || endsInBlank(e.Raw)) {
			t.Errorf("%q is whole: %v", e.Raw, e.Whole)
		}
		if e.HasData() {
			events = append(events, seen{string(e.Name), string(e.Data)})
			if first, _, _ := strings.Cut(string(e.Data), "\n"); !strings.HasPrefix(string(e.Raw[e.DataAt:]), first) {
				t.Errorf("DataAt %d of %q is not where %q begins", e.DataAt, e.Raw, first)
			}
		}
	}
	if err == io.EOF {
		err = nil
	}
	return events, raw, err
}

// endsInBlank reports whether a block ends as a decoder wants it: a comment with its line,
// anything else with a blank one.
func endsInBlank(raw []byte) bool {
	text := strings.ReplaceAll(strings.ReplaceAll(string(raw), "\r\n", "\n"), "\r", "\n")
	if text = strings.TrimPrefix(text, "\n"); strings.HasPrefix(text, ":") {
		return strings.HasSuffix(text, "\n")
	}
	return strings.Trim(text, "\n") == "" || strings.HasSuffix(text, "\n\n")
}

func TestReader(t *testing.T) {
	tests := []struct {
		name, in string
		want     []seen
	}{
		{"lf", "data: a\n\ndata: b\n\n", []seen{{"", "a"}, {"", "b"}}},
		{"crlf", "data: a\r\n\r\ndata: b\r\n\r\n", []seen{{"", "a"}, {"", "b"}}},
		{"cr", "data: a\r\rdata: b\r\r", []seen{{"", "a"}, {"", "b"}}},
		{"mixed", "event: x\rdata: a\r\n\ndata: b\n\r\n", []seen{{"x", "a"}, {"", "b"}}},
		{"names", "event: ping\ndata: {}\n\nevent:done\ndata:1\n\n", []seen{{"ping", "{}"}, {"done", "1"}}},
		{"many data lines", "data: {\ndata:  \"a\": 1\ndata: }\n\n", []seen{{"", "{\n \"a\": 1\n}"}}},
		{"comments", ": hi\n: there\n\ndata: a\n: in between\ndata: b\n\n", []seen{{"", "a\nb"}}},
		{"byte order mark", "\xEF\xBB\xBFdata: a\n\n\xEF\xBB\xBFdata: b\n\n", []seen{{"", "a"}}},
		{"fields without colon or value", "data\n\ndata:\n\nid: 1\nretry: 5\n\n", []seen{{"", ""}, {"", ""}}},
		{"runes", "data: héllo 世界 🙂\n\n", []seen{{"", "héllo 世界 🙂"}}},
		{"unfinished", "data: a\n\ndata: b", []seen{{"", "a"}, {"", "b"}}},
		{"empty", "", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := []byte(test.in)
			for at := 0; at <= len(in); at++ {
				got, raw, err := read(t, 1<<20, in[:at], in[at:])
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Fatalf("split at %d: -want +got\n%s", at, diff)
				}
				if !bytes.Equal(raw, in) {
					t.Fatalf("split at %d: bytes came out as %q", at, raw)
				}
			}
			got, raw, err := read(t, 1<<20, bytes.Split(in, nil)...)
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil || !bytes.Equal(raw, in) {
				t.Fatalf("byte by byte: %v, %q, -want +got\n%s", err, raw, diff)
			}
		})
	}
}

// TestReaderHoldsNothingBack: each event and each comment comes out with the read that
// completes it, not with the next one.
func TestReaderHoldsNothingBack(t *testing.T) {
	for _, whole := range []string{"data: a\n\n", "data: a\r\n\r\n", "data: a\r\r", ": c\n", ": c\r\n", "event: x\ndata: y\n\n"} {
		src := &pieces{left: [][]byte{[]byte(whole), []byte("data: next\n\n")}}
		var r Reader
		r.Reset(src, 1<<20, nil, nil)
		var e Event
		if err := r.Next(&e); err != nil || string(e.Raw) != whole || len(src.left) != 1 {
			t.Errorf("%q: got %q, %v, with %d reads left", whole, e.Raw, err, len(src.left))
		}
	}
}

func TestReaderCallsIdleOnlyBeforeWaiting(t *testing.T) {
	idles := 0
	src := &pieces{ready: true, left: [][]byte{[]byte("data: a\n\nda"), []byte("ta: b\n\n")}}
	var r Reader
	r.Reset(src, 1<<20, func() error { idles++; return nil }, nil)
	var e Event
	for r.Next(&e) == nil {
	}
	if idles != 1 { // before the read that finds the end
		t.Errorf("idle was called %d times, want 1", idles)
	}
	stop := errors.New("stop")
	r.Reset(&pieces{left: [][]byte{[]byte("data: a\n\n")}}, 1<<20, func() error { return stop }, nil)
	if err := r.Next(&e); err != stop {
		t.Errorf("idle's error was not given out: %v", err)
	}
}

func TestReaderLongEvents(t *testing.T) {
	long := []byte("data: " + strings.Repeat("x", 1<<20) + "\n\n")
	got, raw, err := read(t, 2<<20, long, []byte("data: y\n\n"))
	if err != nil || len(got) != 2 || len(got[0].Data) != 1<<20 || len(raw) != len(long)+9 {
		t.Errorf("%d events, %d bytes, %v", len(got), len(raw), err)
	}
	if _, _, err := read(t, 1<<20, long); !errors.Is(err, ErrTooLong) {
		t.Errorf("an event over the limit: %v", err)
	}
}

// TestReaderAsksForMemory before its buffers grow, and lets them go after the event that needed them.
func TestReaderAsksForMemory(t *testing.T) {
	long := "data: " + strings.Repeat("x", 1<<20) + "\n\n"
	lines := strings.Repeat("data: y\n", 1<<17) + "\n"
	short := "data: z\n\n"
	var r Reader
	var e Event
	held, most := 0, 8<<20
	hold := func(n int) bool {
		if n > most {
			return false
		}
		held = n
		return true
	}
	for _, event := range []string{long, lines} {
		r.Reset(&pieces{left: [][]byte{[]byte(event), []byte(short), []byte(short)}}, 16<<20, nil, hold)
		for i := range 3 {
			if err := r.Next(&e); err != nil {
				t.Fatal(err)
			}
			if large := i == 0; large != (held >= len(e.Data) && held > 1<<20) || held > keepSize && held < r.Size() {
				t.Errorf("event %d: %d bytes are held, of a reader of %d", i, held, r.Size())
			}
		}
		most = 1 << 20
		r.Reset(&pieces{left: [][]byte{[]byte(event)}}, 16<<20, nil, hold)
		if err := r.Next(&e); err != ErrNoRoom {
			t.Errorf("without room: %v", err)
		}
		most = 8 << 20
	}
}

// TestReaderTakesLinearTime for whatever comes, however it is cut.
func TestReaderTakesLinearTime(t *testing.T) {
	for name, line := range map[string]string{
		"CR":                   "data: a\r",
		"CR, events":           "data: a\r\r",
		"CR LF":                "data: a\r\n",
		"LF after a CR":        "data: a\n",
		"LF, long, after CR":   "data: " + strings.Repeat("a", 1000) + "\n\n",
		"blank lines of CR":    "\r",
		"blank lines of LF":    "\n",
		"comments":             ":\n",
		"comments of CR":       ":\r",
		"comments in an event": "data: a\n:\n:\n",
		"colons":               "data: ::::",
		"names":                "event: a\n",
		"half a byte order":    "\xEF\xBB",
	} {
		for _, piece := range []int{1, 1 << 30} {
			growth.Linear(t, fmt.Sprintf("%s in pieces of %d", name, piece), func(n int) func() {
				text := []byte("data: a\r" + strings.Repeat(line, n/len(line)))
				return func() {
					var r Reader
					var e Event
					r.Reset(&even{text: text, size: piece}, 1<<30, nil, nil)
					for r.Next(&e) == nil {
					}
				}
			})
		}
	}
}

// even is a Source of pieces of one size.
type even struct {
	text []byte
	size int
}

func (s *even) Ready() bool { return true }

func (s *even) Read(b []byte) (int, error) {
	n := copy(b[:min(len(b), s.size)], s.text)
	if s.text = s.text[n:]; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestReaderDoesNotAllocate(t *testing.T) {
	part := []byte("data: {\"choices\":[{\"delta\":{\"content\":\"hello\"}}]}\n\n")
	src := &pieces{}
	var r Reader
	var e Event
	r.Reset(src, 1<<20, nil, nil)
	left := make([][]byte, 1)
	if n := testing.AllocsPerRun(1000, func() {
		left[0] = part
		src.left = left
		if err := r.Next(&e); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per event", n)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("event: a\r\ndata: b\r\n\r\n: c\rdata\n\n"), uint16(3), uint16(9))
	f.Add([]byte("\xEF\xBB\xBFdata: {\ndata: }\n\n\r\n\n"), uint16(1), uint16(2))
	f.Fuzz(func(t *testing.T, in []byte, a, b uint16) {
		whole, raw, err := read(t, 1<<20, in)
		if err != nil || !bytes.Equal(raw, in) {
			t.Fatalf("whole: %v, %q", err, raw)
		}
		i := int(a) % (len(in) + 1)
		j := i + int(b)%(len(in)-i+1)
		split, raw, err := read(t, 1<<20, in[:i], in[i:j], in[j:])
		if err != nil || !bytes.Equal(raw, in) {
			t.Fatalf("split: %v, %q", err, raw)
		}
		if diff := cmp.Diff(whole, split); diff != "" {
			t.Fatalf("split at %d and %d: -whole +split\n%s", i, j, diff)
		}
	})
}

// sixteen events that came together.
var sixteen = []byte(strings.Repeat("data: {\"choices\":[{\"delta\":{\"content\":\"hello\"},\"finish_reason\":null}]}\n\n", 16))

func BenchmarkReader(b *testing.B) {
	src := &pieces{ready: true}
	var r Reader
	var e Event
	r.Reset(src, 1<<20, nil, nil)
	left := make([][]byte, 1)
	b.SetBytes(int64(len(sixteen)))
	b.ReportAllocs()
	for b.Loop() {
		left[0] = sixteen
		src.left = left
		for range 16 {
			if err := r.Next(&e); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkPipe is a stream's way through: cut into blocks, and written on with a flush for
// what came together.
func BenchmarkPipe(b *testing.B) {
	src := &pieces{ready: true}
	var r Reader
	var w Writer
	var e Event
	r.Reset(src, 1<<20, nil, nil)
	w.Start(io.Discard, nil, time.Hour, 0)
	defer w.Stop()
	left := make([][]byte, 1)
	b.SetBytes(int64(len(sixteen)))
	b.ReportAllocs()
	for b.Loop() {
		left[0] = sixteen
		src.left = left
		for range 16 {
			if err := r.Next(&e); err != nil {
				b.Fatal(err)
			}
			if err := w.Write(e.Raw); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestPeek reads once, gives nothing out, and leaves errors to Next.
func TestPeek(t *testing.T) {
	var r Reader
	var e Event
	r.Reset(&pieces{left: [][]byte{[]byte("da"), []byte("ta: 1\n\n: c\n")}}, 1<<20, nil, nil)
	for range 2 {
		if b, err := r.Peek(); string(b) != "da" || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if err := r.Next(&e); err != nil || string(e.Raw) != "data: 1\n\n" {
		t.Fatalf("%q, %v", e.Raw, err)
	}
	if b, err := r.Peek(); string(b) != ": c\n" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	if err := r.Next(&e); err != nil || string(e.Raw) != ": c\n" {
		t.Fatalf("%q, %v", e.Raw, err)
	}
	for range 2 {
		if b, err := r.Peek(); len(b) > 0 || err != nil {
			t.Fatalf("%q, %v", b, err)
		}
	}
	if err := r.Next(&e); err != io.EOF {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	r.Reset(&pieces{}, 1<<20, func() error { return refused }, nil)
	if _, err := r.Peek(); err != refused {
		t.Fatal(err)
	}
}

// hesitant is a Source whose every other read says that nothing came in time.
type hesitant struct {
	pieces
	waits bool
}

func (h *hesitant) Read(b []byte) (int, error) {
	if h.waits = !h.waits; h.waits {
		return 0, os.ErrDeadlineExceeded
	}
	return h.pieces.Read(b)
}

// TestNextGoesOnAfterATimeout: wherever a source pauses, the events are the same.
func TestNextGoesOnAfterATimeout(t *testing.T) {
	text := []byte(": c\n\nevent: a\ndata: 1\r\ndata: 2\n\n\r\n\r\ndata: 3\n\ndata: half")
	want, raw, _ := read(t, 1<<10, text)
	var parts [][]byte
	for i := range text {
		parts = append(parts, text[i:i+1])
	}
	var r Reader
	r.Reset(&hesitant{pieces: pieces{left: parts}}, 1<<10, nil, nil)
	for {
		_, err := r.Peek()
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	var got []seen
	var all []byte
	for e := new(Event); ; {
		err := r.Next(e)
		if err == io.EOF {
			break
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Raw...)
		if e.HasData() {
			got = append(got, seen{string(e.Name), string(e.Data)})
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || !bytes.Equal(all, raw) {
		t.Errorf("%s\n%q\n%q", diff, all, raw)
	}
}
