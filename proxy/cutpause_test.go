package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/upstreamtest"
)

// breakAfterOne is an upstream's stream that breaks after its first event.
func breakAfterOne(conn net.Conn) {
	_, _ = io.WriteString(conn, streamHead)
	writeChunk(conn, chunkOne)
	conn.Close()
}

// readBroken begins a stream that breaks and reads its events.
func (g *gateway) readBroken() io.ReadCloser {
	g.t.Helper()
	resp, err := g.open("POST", "/v1/chat/completions", request1)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { resp.Body.Close() })
	got := make([]byte, len(annotatedOne+brokenEvent))
	if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != annotatedOne+brokenEvent {
		g.t.Fatalf("%q, %v", got, err)
	}
	return resp.Body
}

// TestCutComesAfterThePause: a client has cutPause to read the error event before the body's end
// comes, and meanwhile the request holds no place.
func TestCutComesAfterThePause(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := startPiped(t, oneModel, breakAfterOne)
		g.p.cutPause = cutPause
		body := g.readBroken()
		began := time.Now()
		synctest.Wait()
		if n := g.p.gate.InFlight(); n != 0 {
			t.Errorf("%d requests are in flight during the pause", n)
		}
		rest, err := io.ReadAll(body)
		if took := time.Since(began); len(rest) > 0 || !errors.Is(err, io.ErrUnexpectedEOF) || took != cutPause {
			t.Errorf("%q, %v after %v", rest, err, took)
		}
	})
}

// TestPauseEndsWithTheProcess: it ends lastPause after the process has begun to cut its requests.
func TestPauseEndsWithTheProcess(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		g := startPiped(t, oneModel, breakAfterOne)
		g.p.cutPause = time.Hour
		body := g.readBroken()
		ended, end := context.WithCancel(context.Background())
		end()
		began := time.Now()
		down := make(chan struct{})
		go func() { g.p.Shutdown(ended, 0); close(down) }()
		_, err := io.ReadAll(body)
		if took := time.Since(began); !errors.Is(err, io.ErrUnexpectedEOF) || took != lastPause {
			t.Errorf("%v after %v", err, took)
		}
		<-down // the gateway's own Shutdown would wait for its lock, and no time passes in a bubble meanwhile
	})
}

// TestPauseEndsWithTheClient: who closes the connection after the error event is not waited for.
func TestPauseEndsWithTheClient(t *testing.T) {
	up := upstreamtest.NewRaw(t, func(conn net.Conn, _ *upstreamtest.Recorded) { breakAfterOne(conn) })
	g := startTCP(t, oneModel, up.Address())
	g.p.cutPause = time.Hour
	g.readBroken().Close()
	eventually(t, "the connection is closed", func() bool { return g.p.conns.Open() == 0 })
	if strings.Contains(g.log.String(), "client_left") {
		t.Error("the client's leaving is recorded, though it had read the answer's end")
	}
}
