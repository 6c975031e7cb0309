package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"
)

const (
	// followSilence is how long the gateway may say nothing: it sends a comment every 15 s.
	followSilence = 45 * time.Second
	// A gateway that has gone is tried again, after pauses that double, until followPatience has passed.
	firstPause, longestPause = 250 * time.Millisecond, 5 * time.Second
	followPatience           = 5 * time.Minute
	// maxEvent bounds a line of the stream, far above a request's.
	maxEvent = 1 << 20
)

var (
	errStreamSilent = fmt.Errorf("the gateway has sent nothing for %s", followSilence)
	errDrains       = errors.New("the gateway drains")
)

// follower reads the stream of requests that have ended. It connects again when the gateway restarts.
type follower struct {
	admin *client
	path  string
	notes io.Writer // what happens to the stream itself
	show  func(request []byte) error
	// unread reports whether nobody reads what is shown any more. It is asked while nothing is shown.
	unread func() bool

	connected bool      // it has been
	lostAt    time.Time // when the connection was lost; zero while there is one
}

// finalError is one that another try does not mend.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// run follows until ctx ends, which is no error.
func (f *follower) run(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		began := time.Now()
		err := f.once(ctx)
		if time.Since(began) > longestPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return nil // that is how it is meant to end
		default:
		}
		var final finalError
		switch {
		case errors.As(err, &final):
			return final.error
		case !f.connected:
			return err
		case f.lostAt.IsZero():
			f.lostAt = time.Now()
			fmt.Fprintf(f.notes, "%v; connecting again\n", err)
		case time.Since(f.lostAt) > followPatience:
			return fmt.Errorf("the gateway did not come back within %s: %w", followPatience, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// once follows one connection, and returns why it has ended.
func (f *follower) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(followSilence, func() { cancel(errStreamSilent) })
	defer silence.Stop()
	defer f.admin.http.CloseIdleConnections() // the next connection may be to another process
	if err := f.back(ctx); err != nil {
		return err
	}
	resp, err := f.admin.send(ctx, http.MethodGet, f.path, nil)
	if err != nil {
		return orCause(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxEvent))
		err := f.admin.refusal(answer, resp.StatusCode)
		if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
			return err
		}
		return finalError{err}
	}
	if !f.lostAt.IsZero() {
		fmt.Fprintln(f.notes, "connected again; requests that ended meanwhile are not shown")
	}
	f.connected, f.lostAt = true, time.Time{}
	return orCause(ctx, f.read(resp.Body, func() { silence.Reset(followSilence) }))
}

// back reports whether a gateway that was lost takes traffic again: one that drains would end the stream
// at once.
func (f *follower) back(ctx context.Context) error {
	if f.lostAt.IsZero() {
		return nil
	}
	_, status, err := f.admin.exchange(ctx, http.MethodGet, "/readyz", nil)
	if err == nil && status != http.StatusOK {
		err = errDrains
	}
	return err
}

// orCause is why ctx was cancelled, where that is why there is err.
func orCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// read shows what is in the stream until it ends. heard is called for each of its lines.
func (f *follower) read(stream io.Reader, heard func()) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	event := ""
	for lines.Scan() {
		heard()
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(": "))
		switch string(name) {
		case "": // a comment, or an event's end
			if f.unread() {
				return finalError{syscall.EPIPE}
			}
		case "event":
			event = string(value)
		case "data":
			if err := f.take(event, value); err != nil {
				return err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the connection to the gateway broke: %w", err)
	}
	return errors.New("the gateway closed the connection")
}

// take does what an event is for.
func (f *follower) take(event string, data []byte) error {
	switch event {
	case "request":
		if err := f.show(data); err != nil {
			return finalError{err}
		}
	case "lost":
		var v struct{ Lost uint64 }
		if json.Unmarshal(data, &v) != nil {
			return finalError{errNoSluice}
		}
		fmt.Fprintf(f.notes, "%d requests ended faster than they could be shown, and are left out\n", v.Lost)
	case "end":
		var v struct{ Reason string }
		if json.Unmarshal(data, &v) != nil {
			return finalError{errNoSluice}
		}
		return errors.New(v.Reason)
	}
	return nil
}
