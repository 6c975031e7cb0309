package proxy

import (
	"bytes"

	"sluice/jsontext"
)

// gatewayName is the member that says who answered. An upstream that is a gateway of this kind too
// has one already; ours takes its place, for no name may stand twice in an object.
var gatewayName = []byte(`"gateway"`)

// withoutGateway takes the upstream's gateway members out of a JSON object, in place. Of one that is not
// searched, a beginning say, only those at its front are. free is false if one of them stays.
func withoutGateway(object []byte, search bool) (rest []byte, free bool) {
	for beginsWithGateway(object) {
		w := jsontext.MembersOf(object)
		if !w.Next() {
			return object, false // not all of it is here
		}
		_, end, behind := w.Span()
		next := behind - 1 // which is not before its comma
		if end = jsontext.SkipSpace(object, end); end < len(object) && object[end] == '}' {
			next = end - 1
		} else if behind == len(object) {
			return object, false
		}
		object = object[next:]
		object[0] = '{'
	}
	if search && isObject(object) && jsontext.MayName(object, gatewayName) {
		blankGateways(object)
	}
	return object, true
}

// isObject reports whether the text is what ours is put into: what begins with a space, say, is not.
func isObject(text []byte) bool { return len(text) > 0 && text[0] == '{' }

// beginsWithGateway reports whether the object's first member is called so.
func beginsWithGateway(object []byte) bool {
	if !isObject(object) {
		return false
	}
	begin := jsontext.SkipSpace(object, 1)
	end, value := jsontext.NameEnd(object, begin)
	return value >= 0 && jsontext.IsText(object[begin:end], "gateway")
}

// blankGateways overwrites later members called so, and the comma before each, with spaces. The first
// member stays: it is ours, or none of them.
func blankGateways(object []byte) {
	w := jsontext.MembersOf(object)
	for w.Next(); w.Next(); {
		if string(w.Name()) != "gateway" {
			continue
		}
		begin, end, _ := w.Span()
		comma := bytes.LastIndexByte(object[:begin], ',')
		for i := comma; i < end; i++ {
			object[i] = ' '
		}
	}
}

// hasGateway reports whether one of the object's members is called so.
func hasGateway(object []byte) bool {
	if !jsontext.MayName(object, gatewayName) {
		return false
	}
	for w := jsontext.MembersOf(object); w.Next(); {
		if string(w.Name()) == "gateway" {
			return true
		}
	}
	return false
}
