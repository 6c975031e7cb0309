package sse

import (
	"bufio"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/upstreamtest"
)

func TestWriterKeepsAliveOnlyInSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out upstreamtest.Buffer
		var w Writer
		w.Start(bufio.NewWriter(&out), 10*time.Second, 0)
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
		w.Start(bufio.NewWriter(&out), 10*time.Second, 10*time.Second)
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
	w.Start(bufio.NewWriter(broken{gone}), time.Hour, 0)
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
	w.Start(bufio.NewWriterSize(&out, 16), time.Microsecond, 0)
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
