package record

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// accessLog takes the lines of requests that have ended and writes them from a goroutine of its own. A
// request waits for nobody: a line that finds no room, or cannot be written, is dropped and counted.
// The lines wait in several places, so that requests do not wait for each other either.
type accessLog struct {
	out     io.Writer
	dropped func(lines int)
	places  [16]linePlace
	full    chan struct{} // a place is half full
	stop    chan struct{}
	done    chan struct{}

	mu               sync.Mutex
	started, stopped bool
}

type linePlace struct {
	mu     sync.Mutex
	lines  []byte
	closed bool     // nobody will write what is added
	_      [64]byte // places next to each other share no cache line
}

const (
	placeBytes = 256 << 10
	// writeLines is how long a line waits at most.
	writeLines = 200 * time.Millisecond
)

func newAccessLog(out io.Writer, dropped func(lines int)) *accessLog {
	return &accessLog{out: out, dropped: dropped, full: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
}

// start has lines be written. It may be called again, and after close does nothing.
func (l *accessLog) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.started && !l.stopped {
		l.started = true
		go l.run()
	}
}

// add takes a line, which ends in LF and is the caller's again afterwards.
func (l *accessLog) add(line []byte) {
	p := &l.places[rand.Uint32()%uint32(len(l.places))]
	p.mu.Lock()
	before := len(p.lines)
	fits := !p.closed && before+len(line) <= placeBytes
	if fits {
		p.lines = append(p.lines, line...)
	}
	p.mu.Unlock()
	switch {
	case !fits:
		l.dropped(1)
	case before < placeBytes/2 && before+len(line) >= placeBytes/2:
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

func (l *accessLog) run() {
	defer close(l.done)
	tick := time.NewTicker(writeLines)
	defer tick.Stop()
	var spare []byte
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-l.full:
		case <-l.stop:
			last = true
		}
		for i := range l.places {
			p := &l.places[i]
			p.mu.Lock()
			spare, p.lines, p.closed = p.lines, spare[:0], last
			p.mu.Unlock()
			l.write(spare)
		}
	}
}

// write writes lines in pieces that a pipe takes whole (PIPE_BUF): while one process takes over
// from another both write to the same.
func (l *accessLog) write(lines []byte) {
	const most = 4096
	for len(lines) > 0 {
		n := min(len(lines), most)
		if end := bytes.LastIndexByte(lines[:n], '\n'); end >= 0 {
			n = end + 1
		} else {
			n = bytes.IndexByte(lines, '\n') + 1 // a longer line
		}
		if written, err := l.out.Write(lines[:n]); err != nil {
			l.dropped(bytes.Count(lines[written:n], []byte{'\n'}))
		}
		lines = lines[n:]
	}
}

// close writes what there is and ends. A line that is added after it is dropped, and counted.
func (l *accessLog) close() {
	l.mu.Lock()
	first := !l.stopped
	l.stopped = true
	started := l.started
	l.mu.Unlock()
	if !started {
		return
	}
	if first {
		close(l.stop)
	}
	<-l.done
}
