package sse

import (
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/upstreamtest"
)

// unframed takes whole chunks and passes on what is in them.
type unframed struct{ io.Writer }

func (u unframed) Write(b []byte) (int, error) {
	whole := append(bytes.Clone(b), "0\r\n\r\n"...)
	if _, err := io.Copy(u.Writer, httputil.NewChunkedReader(bytes.NewReader(whole))); err != nil {
		return 0, err
	}
	return len(b), nil
}

// TestWriterWritesChunks of whole blocks as far as they fit, whatever their size.
func TestWriterWritesChunks(t *testing.T) {
	head := []byte("HTTP/1.1 200 OK\r\n\r\n")
	for _, size := range []int{1, 15, 16, 255, 256, 4095, 4096, bufferSize - sizeLine - lineEnds - len(head), bufferSize - sizeLine - lineEnds, bufferSize, 5 * bufferSize} {
		for _, before := range [][]byte{nil, head, bytes.Repeat([]byte("h"), bufferSize)} {
			var out upstreamtest.Buffer
			var w Writer
			w.Start(&out, before, time.Hour, 0)
			var want []byte
			for _, c := range []byte("abc") {
				block := bytes.Repeat([]byte{c}, size)
				want = append(want, block...)
				if err := w.Write(block[:size/2], nil, block[size/2:]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			w.Stop()
			chunks, ok := strings.CutPrefix(out.String(), string(before))
			if !ok || chunks[0] == '0' {
				t.Fatalf("blocks of %d begin with %.40q", size, out.String())
			}
			got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(chunks + "0\r\n\r\n")))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("blocks of %d: %d bytes of %d, %v", size, len(got), len(want), err)
			}
		}
	}
}

// TestAHeadDoesNotEndTheSilence: the keep-alive comes at its time though the head has left before it.
func TestAHeadDoesNotEndTheSilence(t *testing.T) {
	for _, bare := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var out upstreamtest.Buffer
			w := Writer{Bare: bare}
			w.Start(&out, []byte("head"), time.Minute, time.Minute-time.Second)
			if err := w.Flush(); err != nil || out.String() != "head" {
				t.Errorf("%q, %v", out.String(), err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if !strings.Contains(out.String(), KeepAlive) {
				t.Errorf("bare %v: %q", bare, out.String())
			}
			w.Stop()
		})
	}
}

func TestBareWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{1, 100, bufferSize - 1, bufferSize, 3*bufferSize + 1} {
			var out upstreamtest.Buffer
			w := Writer{Bare: true}
			w.Start(&out, []byte("head"), time.Minute, time.Minute) // silence
			synctest.Wait()
			time.Sleep(time.Minute)
			synctest.Wait()
			block := bytes.Repeat([]byte("b"), size)
			if err := w.Write(block); err != nil || w.Flush() != nil {
				t.Fatal(err)
			}
			w.Stop()
			if want := "head" + KeepAlive + KeepAlive + string(block); out.String() != want {
				t.Errorf("%d: %.60q", size, out.String())
			}
		}
	})
}

// TestWriterSendsTheHeadAlone at once if there is silence, and never an empty chunk.
func TestWriterSendsTheHeadAlone(t *testing.T) {
	var out upstreamtest.Buffer
	var w Writer
	w.Start(&out, []byte("head"), time.Hour, 0)
	if err := w.Flush(); err != nil || out.String() != "head" {
		t.Errorf("%q, %v", out.String(), err)
	}
	w.Stop()
	synctest.Test(t, func(t *testing.T) {
		var out upstreamtest.Buffer
		var w Writer
		w.Start(&out, []byte("head"), time.Minute, time.Minute)
		synctest.Wait()
		if got := out.String(); got != "headd\r\n"+KeepAlive+"\r\n" {
			t.Errorf("%q", got)
		}
		w.Stop()
	})
}

func TestWriterKeepsAliveOnlyInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out upstreamtest.Buffer
		var w Writer
		w.Start(unframed{&out}, nil, 10*time.Second, 0)
		for range 3 { // an event every six seconds: no silence of ten
			time.Sleep(6 * time.Second)
			if err := w.Write([]byte("data: "), []byte("a\n\n")); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := out.String(), "data: a\n\ndata: a\n\ndata: a\n\n"; got != want {
			t.Fatalf("got %q", got)
		}
		events := out.String()
		after := func(d time.Duration, keepAlives int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := out.String(); got != events+strings.Repeat(KeepAlive, keepAlives) {
				t.Fatalf("want %d keep-alives, got %q", keepAlives, got)
			}
		}
		after(10*time.Second-1, 0)
		after(1, 1)
		after(20*time.Second, 3)
		w.Stop()
		after(time.Minute, 3)
		if err := w.Write([]byte("x")); err == nil {
			t.Error("a stopped writer takes bytes")
		}
	})
}

func TestWriterStartsInTheMiddleOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out upstreamtest.Buffer
		var w Writer
		w.Start(unframed{&out}, nil, 10*time.Second, 10*time.Second)
		synctest.Wait()
		if out.String() != KeepAlive {
			t.Errorf("got %q", out.String())
		}
		w.Stop()
	})
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }

func TestWriterSaysThatTheReaderHasGone(t *testing.T) {
	gone := errors.New("gone")
	var w Writer
	w.Start(broken{gone}, nil, time.Hour, 0)
	defer w.Stop()
	if err := w.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != gone {
		t.Errorf("Flush: %v", err)
	}
	if err := w.Write([]byte("x")); err != gone {
		t.Errorf("Write after it: %v", err)
	}
}

// TestKeepAliveNeverLandsInsideABlock, however its parts are written.
func TestKeepAliveNeverLandsInsideABlock(t *testing.T) {
	var out upstreamtest.Buffer
	var w Writer
	w.Start(unframed{&out}, nil, time.Microsecond, 0)
	for range 20_000 {
		if err := w.Write([]byte("data: {"), []byte(`"a":1,`), []byte("}\n\n")); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	w.Stop()
	if rest := strings.ReplaceAll(strings.ReplaceAll(out.String(), "data: {\"a\":1,}\n\n", ""), KeepAlive, ""); rest != "" {
		t.Errorf("blocks were cut: %.200q", rest)
	}
}
