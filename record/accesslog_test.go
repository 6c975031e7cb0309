package record

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/internal/upstreamtest"
)

type stuck struct{ release chan struct{} }

func (s stuck) Write(b []byte) (int, error) { <-s.release; return len(b), nil }

// TestAccessLogNeverBlocks: where nobody takes its lines, they are dropped and counted, and not kept.
func TestAccessLogNeverBlocks(t *testing.T) {
	release := make(chan struct{})
	var dropped atomic.Int64
	l := newAccessLog(stuck{release}, func(n int) { dropped.Add(int64(n)) })
	l.start()
	line := []byte(strings.Repeat("x", 1023) + "\n")
	const n = 20_000 // some 20 MB
	for range n {
		l.add(line)
	}
	kept := 0
	for i := range l.places {
		kept += len(l.places[i].lines)
	}
	if most := 2 * len(l.places) * placeBytes; kept > most || dropped.Load() < n/2 {
		t.Errorf("%d bytes are kept, %d lines dropped", kept, dropped.Load())
	}
	close(release)
	l.close()
}

// half is a reader that leaves in the middle of a write.
type half struct{}

func (half) Write(b []byte) (int, error) { return len(b) / 2, io.ErrClosedPipe }

// TestAccessLogThatCannotBeWritten counts the lines that did not get out whole.
func TestAccessLogThatCannotBeWritten(t *testing.T) {
	var dropped atomic.Int64
	l := newAccessLog(half{}, func(n int) { dropped.Add(int64(n)) })
	l.write([]byte("first\nsecond\nthird\nfourth\n"))
	l.write(bytes.Repeat([]byte("x\n"), 4096)) // in two pieces
	l.close()
	if got := dropped.Load(); got != 2+2048 {
		t.Errorf("%d lines were counted as dropped, want %d", got, 2+2048)
	}
}

// TestAccessLogEndsInAnyOrder: what was added before its end is written, what comes after is counted as
// dropped, and a configuration that asks for it late starts nothing.
func TestAccessLogEndsInAnyOrder(t *testing.T) {
	for range 100 {
		var out upstreamtest.Buffer
		var dropped atomic.Int64
		l := newAccessLog(&out, func(n int) { dropped.Add(int64(n)) })
		const each = 10
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range each {
					l.add([]byte("a line\n"))
				}
			})
			wg.Go(l.start)
		}
		wg.Go(l.close)
		wg.Wait()
		l.close()
		l.start()
		if written := strings.Count(out.String(), "\n"); l.started && written+int(dropped.Load()) != 4*each {
			t.Fatalf("%d lines are written, and %d dropped, of %d", written, dropped.Load(), 4*each)
		}
	}
}
