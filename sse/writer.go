package sse

import (
	"bufio"
	"errors"
	"sync"
	"time"
)

// KeepAlive is the comment that is sent in silence: one comment line without the
// blank line after it, which no decoder takes for an event.
const KeepAlive = ": keep-alive\n"

var errStopped = errors.New("stream writer is stopped")

// Writer passes blocks on to a flushing writer and sends KeepAlive whenever nothing
// has been written for a while. Its methods may be called from several goroutines.
type Writer struct {
	mu    sync.Mutex
	w     *bufio.Writer // nil before Start and after Stop
	every time.Duration
	last  time.Time // when something left
	timer *time.Timer
	err   error
}

// Start makes w write to dst, with a keep-alive after each every of silence. silent is
// how long there has been silence already.
func (w *Writer) Start(dst *bufio.Writer, every, silent time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.w, w.every, w.err = dst, every, nil
	w.last = time.Now().Add(-silent)
	wait := max(0, every-silent)
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.keepAlive)
	} else {
		w.timer.Reset(wait)
	}
}

// Stop ends the Writer, if it was started: when it returns, nothing more reaches dst.
func (w *Writer) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.w != nil {
		w.w = nil
		w.timer.Stop()
	}
}

// Write buffers one block, which may be given in parts. No keep-alive gets in between
// them.
func (w *Writer) Write(parts ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return w.err
	case w.w == nil:
		return errStopped
	}
	before := w.w.Buffered()
	for _, b := range parts {
		if w.err != nil {
			break
		}
		before += len(b)
		_, w.err = w.w.Write(b)
	}
	if w.w.Buffered() != before { // it was full, and has left without Flush
		w.last = time.Now()
	}
	return w.err
}

// Flush sends what is buffered.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *Writer) flush() error {
	switch {
	case w.err != nil:
		return w.err
	case w.w == nil:
		return errStopped
	case w.w.Buffered() == 0:
		return nil
	}
	w.err = w.w.Flush()
	w.last = time.Now()
	return w.err
}

// keepAlive runs on the timer. The timer is not moved at each event; it finds out here
// how much of the silence is still to come.
func (w *Writer) keepAlive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.w == nil || w.err != nil {
		return
	}
	left := w.every - time.Since(w.last)
	switch {
	case left > 0:
	case w.w.Buffered() > 0: // somebody is about to flush: there is no silence
		if w.flush() != nil {
			return
		}
		left = w.every
	default:
		if _, w.err = w.w.WriteString(KeepAlive); w.err != nil || w.flush() != nil {
			return
		}
		left = w.every
	}
	w.timer.Reset(left)
}
