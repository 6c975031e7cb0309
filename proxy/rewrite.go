package proxy

import "sluice/pool"

// rewrite appends the body for target to dst, in pieces: the target's name for the model in the
// field that the client used (or in the target's model_field), without the gateway object.
// Everything else is the client's body as it stands, which is not copied; the pieces are good
// as long as r.body is.
func (r *request) rewrite(dst [][]byte, target *pool.Target) [][]byte {
	m := &r.fields.members
	r.tokens.asked = r.askUsage(target)
	separator := openBrace
	add := func(parts ...[]byte) {
		dst = append(append(dst, separator), parts...)
		separator = comma
	}
	if m.find(nameModel) == nil && m.find(nameModelID) == nil {
		field := target.ModelField
		if field == nil {
			field = modelField
		}
		add(field, colon, target.Name)
	}
	if r.tokens.asked && m.find(nameStreamOptions) == nil {
		add(streamOptions, colon, r.options)
	}
	from, before := m.first, -1 // where the members not yet passed on begin, and the last one's index
	placed := false
	for i := range m.list[:m.n] {
		own := &m.list[i]
		switch own.name {
		case nameModel, nameModelID, nameGateway:
		case nameStreamOptions:
			if !r.tokens.asked {
				continue
			}
		default:
			continue
		}
		if own.index > before+1 {
			add(r.body[from:own.prevEnd])
		}
		from, before = own.nextStart, own.index
		switch {
		case own.name == nameGateway:
		case own.name == nameStreamOptions:
			add(r.body[own.keyStart:own.keyEnd], colon, r.options)
		case target.ModelField == nil:
			add(r.body[own.keyStart:own.keyEnd], colon, target.Name)
		case !placed:
			add(target.ModelField, colon, target.Name)
			placed = true
		}
	}
	if before < m.count-1 {
		add(r.body[from:m.last])
	}
	return append(dst, closeBrace)
}

var (
	modelField    = []byte(`"model"`)
	streamOptions = []byte(`"stream_options"`)
	colon         = []byte{':'}
	comma         = []byte{','}
	openBrace     = []byte{'{'}
	closeBrace    = []byte{'}'}
)
