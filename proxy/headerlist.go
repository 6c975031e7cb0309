package proxy

import "strings"

// headerList is a set of header names and of prefixes of such, in lower case. Case makes no difference,
// nor does an underscore for a dash: CGI and what follows it (WSGI, Rack, PHP) makes one name of both.
type headerList struct {
	names    map[string]bool
	prefixes []string
	// marks has, for each length of a name, a bit for each mark that names of that length
	// on the list have. Nearly all headers that pass are known by it.
	marks [64]uint32
}

func newHeaderList(prefixes []string, names ...string) *headerList {
	l := &headerList{names: make(map[string]bool, len(names)), prefixes: prefixes}
	for _, n := range names {
		l.names[n] = true
		l.marks[min(len(n), len(l.marks)-1)] |= marksOf(n)
	}
	for _, p := range prefixes {
		for n := len(p); n < len(l.marks); n++ {
			l.marks[n] |= marksOf(p)
		}
	}
	return l
}

// marksOf are the marks of a name's spellings.
func marksOf(name string) uint32 { return mark(name) | mark(strings.ReplaceAll(name, "-", "_")) }

// mark is a bit that depends on a name's first and third characters. The bits that tell upper from lower case
// fall out of it.
func mark[T string | []byte](name T) uint32 {
	return 1 << ((name[0] ^ 3*name[min(2, len(name)-1)]) & 31)
}

// has reports whether a name, in any spelling, is on the list.
func (l *headerList) has(name []byte) bool {
	return len(name) > 0 && l.marks[min(len(name), len(l.marks)-1)]&mark(name) != 0 && l.find(name)
}

func (l *headerList) find(name []byte) bool {
	var buf [32]byte
	if len(name) > len(buf) {
		name = name[:len(buf)] // longer than any on the list, but maybe of a prefix
	}
	lower := buf[:len(name)]
	for i, c := range name {
		switch {
		case 'A' <= c && c <= 'Z':
			c += 'a' - 'A'
		case c == '_':
			c = '-'
		}
		lower[i] = c
	}
	if l.names[string(lower)] {
		return true
	}
	for _, p := range l.prefixes {
		if len(lower) >= len(p) && string(lower[:len(p)]) == p {
			return true
		}
	}
	return false
}
