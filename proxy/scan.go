package proxy

import "sluice/jsontext"

// member is one that concerns the gateway, and where it stands in the body. prevEnd is where the value
// of the member before it ends, nextStart where the name of the one after it begins; both
// are 0 without one.
type member struct {
	name               name
	index              int // among all members
	keyStart, keyEnd   int // with the quotes
	valueStart         int
	valueEnd           int
	prevEnd, nextStart int
}

// members is what scan finds, in the order of the body.
type members struct {
	list  [names - 1]member
	n     int
	count int    // of all members
	again uint16 // a bit for each name that is there more than once
	odd   oddName
	first int // where the first member's name begins
	last  int // where the last member's value ends
}

// oddName is the first top-level name that is refused, and where it stands, with the quotes.
type oddName struct {
	why        oddity // notOdd without one
	name       name   // that of ours which it is taken for
	start, end int
}

func (m *members) find(n name) *member {
	for i := range m.list[:m.n] {
		if m.list[i].name == n {
			return &m.list[i]
		}
	}
	return nil
}

// repeated is the first of the names that concern the gateway alone or first of all and are there
// more than once; nameOther without one. The others are upstream's to judge.
func (m *members) repeated() name {
	for n := nameModel; n <= nameGateway; n++ {
		if m.again>>n&1 != 0 {
			return n
		}
	}
	return nameOther
}

// scan reads the body once: it finds the top-level members that concern the gateway, bounds the
// nesting, and refuses what is not strictly valid JSON (jsontext). fields are the upstreams'
// model_field names (modelFields).
func scan(body []byte, fields []string, m *members) (err error) {
	m.n, m.count, m.again, m.odd, m.first, m.last = 0, 0, 0, oddName{}, 0, 0 // the list is what n says
	i := jsontext.SkipSpace(body, 0)
	if i == len(body) || body[i] != '{' {
		return jsontext.ErrNotJSON
	}
	i = jsontext.SkipSpace(body, i+1)
	if i < len(body) && body[i] == '}' {
		return onlySpace(body, i+1)
	}
	var open *member // ours, waiting for where the next begins
	for ; ; m.count++ {
		here := member{index: m.count, keyStart: i, prevEnd: m.last}
		if m.count == 0 {
			m.first = i
		}
		if open != nil {
			open.nextStart = i
			open = nil
		}
		if here.keyEnd, here.valueStart = jsontext.NameEnd(body, i); here.valueStart < 0 {
			return jsontext.ErrNotJSON
		}
		if here.valueEnd, err = jsontext.ValueEnd(body, here.valueStart); err != nil {
			return err
		}
		m.last = here.valueEnd
		var why oddity
		here.name, why = nameOf(body[i+1:here.keyEnd-1], fields)
		switch {
		case why != notOdd:
			if m.odd.why == notOdd {
				m.odd = oddName{why, here.name, here.keyStart, here.keyEnd}
			}
		case here.name == nameOther:
		case m.find(here.name) != nil:
			m.again |= 1 << here.name
		default:
			m.list[m.n] = here
			open = &m.list[m.n]
			m.n++
		}
		i = jsontext.SkipSpace(body, here.valueEnd)
		if i == len(body) {
			return jsontext.ErrNotJSON
		}
		switch body[i] {
		case '}':
			m.count++
			return onlySpace(body, i+1)
		case ',':
			i = jsontext.SkipSpace(body, i+1)
		default:
			return jsontext.ErrNotJSON
		}
	}
}

func onlySpace(b []byte, i int) error {
	if jsontext.SkipSpace(b, i) != len(b) {
		return jsontext.ErrNotJSON
	}
	return nil
}
