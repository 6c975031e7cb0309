package sse

import (
	"errors"
	"io"
	"sync"
	"time"
)

// KeepAlive is the comment that is sent in silence: one comment line without the
// blank line after it, which no decoder takes for an event.
const KeepAlive = ": keep-alive\n"

var errStopped = errors.New("stream writer is stopped")

// Writer passes blocks on as chunks of an HTTP/1.1 body (RFC 9112, section 7.1), what was
// written between two flushes in one chunk and one Write, and sends KeepAlive whenever nothing
// has been written for a while. The last chunk, which is empty, is left to others. Its methods
// may be called from several goroutines.
type Writer struct {
	// Bare has what is written leave as it is, without chunks. It is set before Start.
	Bare bool

	mu    sync.Mutex
	dst   io.Writer // nil before Start and after Stop
	buf   *[bufferSize]byte
	chunk int // where in buf the chunk begins: what comes before is no part of the body
	end   int // of what is in buf
	every time.Duration
	last  time.Time // when something of the body left
	timer *time.Timer
	err   error
}

// A buffer is held only while something is in it: of many streams, few are about to write.
const (
	bufferSize = 16 << 10
	sizeLine   = len("3ff0\r\n") // before the chunk's bytes
	lineEnds   = len("\r\n")     // behind them
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Start makes w write to dst, with a keep-alive after each every of silence. silent is
// how long there has been silence already. before is sent with the first chunk, in front of it:
// the head of the answer.
func (w *Writer) Start(dst io.Writer, before []byte, every, silent time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dst, w.every, w.err = dst, every, nil
	w.last = time.Now().Add(-silent)
	if len(before) > bufferSize/2 {
		_, w.err = dst.Write(before)
	} else if len(before) > 0 {
		w.fill(before)
	}
	wait := max(0, every-silent)
	if w.timer == nil {
		w.timer = time.AfterFunc(wait, w.keepAlive)
	} else {
		w.timer.Reset(wait)
	}
}

// fill takes a buffer with before at its beginning.
func (w *Writer) fill(before []byte) {
	w.buf = buffers.Get().(*[bufferSize]byte)
	w.chunk = copy(w.buf[:], before)
	w.end = w.chunk + w.sizeLine()
}

// sizeLine is how many bytes are kept for the line before the chunk's bytes.
func (w *Writer) sizeLine() int {
	if w.Bare {
		return 0
	}
	return sizeLine
}

// Stop ends the Writer, if it was started: when it returns, nothing more reaches dst.
func (w *Writer) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dst != nil {
		w.dst = nil
		w.timer.Stop()
		w.giveBack()
	}
}

func (w *Writer) giveBack() {
	if w.buf != nil {
		buffers.Put(w.buf)
		w.buf = nil
	}
}

// Write buffers one block, which may be given in parts. No keep-alive gets in between
// them.
func (w *Writer) Write(parts ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write(parts...)
}

func (w *Writer) write(parts ...[]byte) error {
	switch {
	case w.err != nil:
		return w.err
	case w.dst == nil:
		return errStopped
	}
	size := 0
	for _, b := range parts {
		size += len(b)
	}
	const full = bufferSize - lineEnds
	if w.buf != nil && w.end+size > full && w.flush() != nil {
		return w.err
	}
	for _, b := range parts {
		for len(b) > 0 {
			if w.buf == nil {
				w.fill(nil)
			}
			n := copy(w.buf[w.end:full], b)
			w.end += n
			b = b[n:]
			if len(b) > 0 && w.flush() != nil {
				return w.err
			}
		}
	}
	return nil
}

// Flush sends what is buffered.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.err != nil:
		return w.err
	case w.dst == nil:
		return errStopped
	}
	return w.flush()
}

func (w *Writer) flush() error {
	if w.buf == nil {
		return nil
	}
	_, w.err = w.dst.Write(w.framed())
	if w.end > w.chunk+w.sizeLine() { // a head alone does not end the silence
		w.last = time.Now()
	}
	w.giveBack()
	return w.err
}

// framed is what is buffered, with the chunk's framing.
func (w *Writer) framed() []byte {
	if w.Bare {
		return w.buf[:w.end]
	}
	size := w.end - w.chunk - sizeLine
	if size == 0 {
		return w.buf[:w.chunk] // an empty chunk would be the last
	}
	// Written backwards, without leading zeros; what came before moves up to it.
	const digits = "0123456789abcdef"
	at := w.chunk + sizeLine
	at--
	w.buf[at] = '\n'
	at--
	w.buf[at] = '\r'
	for ; size > 0; size >>= 4 {
		at--
		w.buf[at] = digits[size&15]
	}
	begin := at - w.chunk
	copy(w.buf[begin:at], w.buf[:w.chunk])
	n := copy(w.buf[w.end:], "\r\n")
	return w.buf[begin : w.end+n]
}

// keepAlive runs on the timer. The timer is not moved at each event; it finds out here
// how much of the silence is still to come.
func (w *Writer) keepAlive() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dst == nil || w.err != nil {
		return
	}
	left := w.every - time.Since(w.last)
	if left <= 0 {
		// If somebody is about to flush there is no silence, but for a head alone.
		if w.buf == nil || w.end == w.chunk+w.sizeLine() {
			if w.write([]byte(KeepAlive)) != nil {
				return
			}
		}
		if w.flush() != nil {
			return
		}
		left = w.every
	}
	w.timer.Reset(left)
}
