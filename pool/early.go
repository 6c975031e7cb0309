package pool

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sys/unix"
)

// An upstream may answer before it has read the whole request: it refuses a body that is too
// large, or a client that asks too often. RFC 9112, section 9.5, has a client look for that while
// it writes, and then stop. What fits into the buffers of the two kernels is written before an
// answer could come; a larger request is written by a goroutine of its own, while Send reads.

// largeRequest is from how many bytes on a request is written beside the reading.
const largeRequest = 64 << 10

// large reports whether x's request is a large one.
func (x *Exchange) large() bool {
	n := len(x.Head)
	for _, b := range x.Body {
		n += len(b)
	}
	return n > largeRequest
}

// writeAndListen is roundTrip for a large request. An answer that is no success ends the writing; one
// that is leaves the upstream to read the rest. w is what x's connection runs over.
func (x *Exchange) writeAndListen(w *watched, began time.Time) (unread bool, err error) {
	if x.link.reused() && w.came() {
		return false, errStirred
	}
	if err := w.beginDuplex(); err != nil {
		return true, err
	}
	x.reader = x.upstream.client.AcquireReader(x.link.Conn())
	x.written = make(chan error, 1)
	go x.aside()
	heard, stopped, err := x.listen(w)
	failure := <-x.written
	w.endDuplex()
	if v := x.panicked; v != nil {
		x.panicked = nil
		panic(v)
	}
	x.cut = failure != nil
	switch {
	case heard && (stopped || !isTimeout(failure)):
		return false, err
	case heard, failure != nil && !isTimeout(failure):
		return !heard, fmt.Errorf("cannot write the request: %w", failure)
	}
	// Of a request that was not written to its end the upstream has read a part at most.
	return closedByPeer(err) && (x.cut || time.Since(began) < resendWithin), noByte(err)
}

// listen reads the answer's head, and stops the writing beside it, unless that is to go on. A panic in it
// goes on once the other goroutine has ended, whose the request is until then.
func (x *Exchange) listen(w *watched) (heard, stopped bool, err error) {
	stopped = true
	defer func() {
		if stopped {
			w.stopWriting()
		}
		if v := recover(); v != nil {
			<-x.written
			panic(v)
		}
	}()
	if _, err = x.reader.Peek(1); err != nil {
		return false, true, err
	}
	err = x.readHead()
	return true, err != nil || x.Response.StatusCode() >= fasthttp.StatusMultipleChoices, err
}

// writeAside writes the request. If it cannot, what there is of an answer is still read.
func (x *Exchange) writeAside() {
	var err error
	defer func() {
		if x.panicked = recover(); x.panicked != nil {
			err = errors.New("BUG: a panic while writing")
		}
		if err != nil && !isTimeout(err) {
			_ = rawConn(x.link.Conn()).(*watched).Conn.SetReadDeadline(time.Now().Add(answerAfterWrite))
		}
		x.written <- err
	}()
	err = x.writeRequest()
}

func closedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func noByte(err error) error { return fmt.Errorf("no byte of an answer: %w", err) }

// came reports whether something has come that was not read, or the connection is closed on this
// side. What is no socket is not asked.
func (w *watched) came() (came bool) {
	if w.raw == nil {
		return false
	}
	err := w.raw.Read(func(fd uintptr) bool {
		_, err := peek(int(fd))
		came = err != unix.EAGAIN
		return true
	})
	return came || err != nil && !isTimeout(err)
}

// beginDuplex lets one goroutine read and another write until endDuplex. Meanwhile nobody sets a
// deadline of w, and that of the connection itself is not behind.
func (w *watched) beginDuplex() error {
	w.duplex = true
	return w.arm()
}

// stopWriting ends the write that is under way in another goroutine, and all that would follow.
func (w *watched) stopWriting() { _ = w.Conn.SetWriteDeadline(time.Unix(1, 0)) }

// endDuplex is called when the other goroutine has ended.
func (w *watched) endDuplex() {
	w.duplex = false
	_ = w.arm()
}
