package proxy

import "unsafe"

// borrowString is b as a string without a copy. It is good until b changes, so it goes
// only to functions that keep nothing of it.
func borrowString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// borrowBytes is s as bytes without a copy, which must not be changed. It goes only to functions
// that keep nothing of it.
func borrowBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
