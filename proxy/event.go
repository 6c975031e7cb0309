package proxy

import (
	"bytes"

	"sluice/jsontext"
	"sluice/pool"
)

// isEvent reports whether the block is a first event: comments and pings are not.
func (s *stream) isEvent() bool { return s.event.HasData() && !bytes.Equal(s.event.Name, ping) }

// refusal is the error that a first event is where it says that there will be no answer.
func (s *stream) refusal() error {
	e := &s.event
	status, is := told(e.Data)
	switch {
	case is || bytes.Equal(e.Name, errorName):
		return &pool.Error{Cause: pool.ErrorEvent, Err: &toldError{status, bytes.Clone(e.Data)}}
	case bytes.Equal(bytes.TrimSpace(e.Data), doneData):
		return errNoText
	}
	return nil
}

// noteError notes an event after the first that says that the answer will not be complete: an error, or the
// Responses API's end of an answer that failed.
func (s *stream) noteError() {
	data := s.event.Data
	status, is := told(data)
	if !is && !bytes.Equal(s.event.Name, errorName) && !(bytes.Contains(data, responseFailed) && jsontext.IsText(jsontext.Member(data, "type"), "response.failed")) {
		return
	}
	s.failed = pool.StreamBroken
	if status/100 == 4 {
		s.failed = pool.ErrorEvent // which the target's breaker does not count
	}
}

var (
	ping           = []byte("ping")
	errorName      = []byte("error")
	errorMember    = []byte(`"error"`)
	responseFailed = []byte("response.failed")
)

// writeEvent writes the block, with the gateway's member in the first JSON object.
func (s *stream) writeEvent() error {
	e := &s.event
	if e.HasData() {
		extra := false
		if !s.ended {
			s.noteError()
		}
		if !s.ended || !s.last {
			found := look(e)
			if found.ends {
				s.ended, s.last = true, found.last
			}
			if found.usage {
				extra = s.r.tokens.usage.readEvent(e.Data)
			}
		}
		if extra && s.r.tokens.asked {
			return nil // the client did not ask for it
		}
		if s.r.tokens.limited {
			s.r.tokens.count(e.Data, s.r.route)
		}
		if !e.Whole && !s.ended && s.r.route.terminated {
			return nil // the stream ends here, and is broken: half an event helps nobody
		}
		if s.r.route.dialect == responses {
			s.seen.see(e.Data)
		}
		if !s.annotated {
			if at := bytes.IndexByte(e.Data, '{'); at >= 0 && len(bytes.Trim(e.Data[:at], " \t")) == 0 {
				s.annotated = true
				return s.writeAnnotated(at)
			}
		}
	}
	return s.write(e.Raw)
}

// writeAnnotated writes the block with the member in the object that begins at a place in the event's
// data. One that the object has is replaced, but in data of several lines, where it stays.
func (s *stream) writeAnnotated(at int) error {
	e := &s.event
	object, behind := e.Data[at:], e.DataAt+at+1
	if bytes.IndexByte(object, '\n') >= 0 {
		if hasGateway(object) {
			return s.write(e.Raw)
		}
		return s.write(e.Raw[:behind], s.memberBefore(object), e.Raw[behind:])
	}
	rest, free := withoutGateway(object, true)
	if !free {
		return s.write(e.Raw)
	}
	return s.write(e.Raw[:behind], s.memberBefore(rest), rest[1:], e.Raw[e.DataAt+len(e.Data):])
}

// memberBefore is the member as it stands before those that object has.
func (s *stream) memberBefore(object []byte) []byte {
	if next := jsontext.SkipSpace(object, 1); next < len(object) && object[next] != '}' {
		s.member = append(s.member, ',')
	}
	return s.member
}

func (s *stream) write(parts ...[]byte) error {
	size := 0
	for _, b := range parts {
		size += len(b)
	}
	s.r.bytesOut += int64(size)
	if size > 2*freeMemory {
		s.client.Start()
		defer s.client.Stop()
	}
	return s.writer.Write(parts...)
}
