package config

import (
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// The parser takes time quadratic in the number of siblings: each pair of a block mapping copies all
// that follow it, and each missing value moves all tokens that follow. So it gets a long mapping or
// list in parts of a few siblings, and a null where a value is missing. What would still cost it much,
// nesting and the long paths that come with it, is refused.

const (
	// partSize is how many siblings the parser gets at once.
	partSize = 64
	// maxNesting and maxPath bound the path of a field, of which the parser makes one for each node.
	maxNesting = 128
	maxPath    = 1 << 10
	// indexPath is about what an index adds to a path.
	indexPath = 6
	// maxProperties bounds anchors and tags in a row: a mapping and its first name can have one each.
	maxProperties = 4
)

// part is what the parser gets at once: a document, or some later siblings of the mapping or list that
// begins with the token first.
type part struct {
	first  *token.Token
	tokens token.Tokens
}

// level is a block mapping, a block list, an open bracket, or the document.
type level struct {
	kind    token.Type // MappingKeyType, SequenceEntryType, or that of the bracket
	column  int
	first   *token.Token
	part    int  // that its tokens go to
	members int  // begun in that part
	path    int  // about how long the path is here
	pending bool // the newest member's value is not there yet
	bare    bool // the newest pair has no colon yet
}

// parting cuts the tokens of one document.
type parting struct {
	tokens     token.Tokens
	names      []*token.Token       // of the pairs that begin at the tokens
	long       map[*token.Token]int // the true lengths of names that were cut short
	parts      []part
	levels     []level
	brackets   int // that are open
	properties int // anchors and tags in a row
}

// partsOf cuts the tokens of a document. Names that are too long are cut short.
func partsOf(tokens token.Tokens) (*parting, error) {
	p := &parting{tokens: tokens, names: make([]*token.Token, len(tokens)), long: map[*token.Token]int{},
		parts: make([]part, 1), levels: make([]level, 1)}
	p.findNames()
	for i := 0; i < len(tokens); {
		n, err := p.take(i)
		if err == nil && (len(p.levels) > maxNesting || p.top().path > maxPath) {
			err = mistake(tokens[i], "nested too deep")
		}
		if err != nil {
			return nil, err
		}
		i += n
	}
	p.leave(1)
	return p, nil
}

// findNames finds where pairs begin: with the question mark, the anchor or the tag in front of the name.
func (p *parting) findNames() {
	for i, t := range p.tokens {
		if t.Type != token.MappingValueType || i == 0 || isStructure(p.tokens[i-1]) {
			continue
		}
		begin := i - 1
		for begin > 0 && p.belongs(begin) {
			begin--
		}
		p.names[begin] = p.tokens[i-1]
		p.shorten(p.tokens[i-1])
	}
}

// belongs reports whether the token at i belongs to the one before it, as a name to its anchor.
func (p *parting) belongs(i int) bool {
	before, line := p.tokens[i-1], p.tokens[i].Position.Line
	switch before.Type {
	case token.MappingKeyType, token.AliasType, token.AnchorType:
		return true
	case token.TagType:
		return before.Position.Line == line && !collectionTags[before.Value]
	}
	return i > 1 && p.tokens[i-2].Type == token.AnchorType && before.Position.Line == line
}

var collectionTags = map[string]bool{"!!map": true, "!!seq": true, "!!set": true, "!!omap": true}

func isStructure(t *token.Token) bool {
	switch t.Type {
	case token.MappingValueType, token.CollectEntryType, token.SequenceEntryType, token.DocumentHeaderType,
		token.MappingStartType, token.MappingEndType, token.SequenceStartType, token.SequenceEndType:
		return true
	}
	return false
}

// shorten makes a name that is much too long one that is just too long: it is in many paths.
func (p *parting) shorten(name *token.Token) {
	if n := len(name.Value); n > maxName+utf8.UTFMax {
		end := maxName + 1
		for !utf8.RuneStart(name.Value[end]) {
			end++
		}
		p.long[name], name.Value = n, name.Value[:end]
	}
}

// take puts the token at i and those that belong to it into their part, and returns how many they are.
func (p *parting) take(i int) (n int, err error) {
	t := p.tokens[i]
	if err := p.countProperties(t); err != nil {
		return 0, err
	}
	if name := p.names[i]; name != nil || t.Type == token.MappingKeyType {
		if err := p.member(t, token.MappingKeyType, name); err != nil {
			return 0, err
		}
	}
	n = 1
	switch t.Type {
	case token.DirectiveType:
		for i+n < len(p.tokens) && p.tokens[i+n].Type != token.DocumentHeaderType {
			n++
		}
	case token.DocumentHeaderType, token.DocumentEndType:
		p.leave(1)
	case token.SequenceEntryType:
		err = p.member(t, token.SequenceEntryType, nil)
		p.top().pending = true
	case token.MappingValueType:
		p.value(i)
	case token.CollectEntryType, token.MappingEndType, token.SequenceEndType:
		p.delimit(t)
	case token.MappingStartType, token.SequenceStartType:
		p.enter(t, t.Type)
		p.brackets++
	case token.MappingKeyType:
		p.top().bare = true
	case token.TagType:
		p.inBraces()
	case token.AnchorType:
		n = min(2, len(p.tokens)-i) // with its name
	case token.AliasType, token.LiteralType, token.FoldedType:
		n = min(2, len(p.tokens)-i) // with its name, or its text
		fallthrough
	default:
		p.inBraces()
		p.top().pending = false
	}
	p.put(p.tokens[i : i+n]...)
	return n, err
}

// inBraces notes that something stands in braces that may be a name without a colon.
func (p *parting) inBraces() {
	if top := p.top(); top.kind == token.MappingStartType {
		top.bare = true
	}
}

func (p *parting) countProperties(t *token.Token) error {
	if t.Type != token.AnchorType && t.Type != token.TagType {
		p.properties = 0
		return nil
	}
	if p.properties++; p.properties > maxProperties {
		return mistake(t, "not valid YAML: too many anchors and tags in a row")
	}
	return nil
}

func (p *parting) top() *level { return &p.levels[len(p.levels)-1] }

func (p *parting) put(tokens ...*token.Token) {
	to := &p.parts[p.top().part]
	to.tokens = append(to.tokens, tokens...)
}

func (p *parting) enter(first *token.Token, kind token.Type) {
	parent := p.top()
	parent.pending = false
	path := parent.path
	if kind == token.SequenceStartType || kind == token.SequenceEntryType {
		path += indexPath
	}
	p.levels = append(p.levels, level{kind: kind, column: first.Position.Column, first: first, part: parent.part, path: path})
}

// leave ends levels until there are n.
func (p *parting) leave(n int) {
	for len(p.levels) > n {
		p.complete()
		if kind := p.top().kind; kind == token.MappingStartType || kind == token.SequenceStartType {
			p.brackets--
		}
		p.levels = p.levels[:len(p.levels)-1]
	}
}

// member begins a pair or an item, which t is the first token of.
func (p *parting) member(t *token.Token, kind token.Type, name *token.Token) error {
	if p.brackets > 0 {
		if top := p.top().kind; kind == token.SequenceEntryType || top == token.MappingKeyType {
			return mistake(t, "not valid YAML: ',' or a closing bracket must be specified")
		}
		p.enter(t, kind)
	} else {
		p.leaveFor(t.Position.Column, kind)
		if top := p.top(); top.kind == kind && top.column == t.Position.Column {
			p.complete()
		} else {
			p.enter(t, kind)
		}
	}
	top := p.top()
	if top.members++; top.members > partSize {
		top.members, top.part = 1, len(p.parts)
		p.parts = append(p.parts, part{first: top.first})
	}
	if name != nil {
		top.path = p.levels[len(p.levels)-2].path + 1 + len(name.Value)
	}
	return nil
}

// leaveFor ends the block levels that a member in a column is not in.
func (p *parting) leaveFor(column int, kind token.Type) {
	n := len(p.levels)
	for n > 1 {
		l := p.levels[n-1]
		// A list may stand in the same column as the name that it is the value of.
		sameList := l.kind == token.SequenceEntryType && kind == token.SequenceEntryType
		if l.column < column || l.column == column && (sameList || l.kind == token.MappingKeyType) {
			break
		}
		n--
	}
	p.leave(n)
}

// value begins the value of a pair, with the colon at i.
func (p *parting) value(i int) {
	colon := p.tokens[i]
	if p.brackets == 0 && i > 0 && p.tokens[i-1].Position.Line < colon.Position.Line {
		p.leaveFor(colon.Position.Column, token.MappingKeyType) // the name had a question mark
	}
	p.top().pending, p.top().bare = true, false
}

// delimit ends a member in brackets, or the brackets.
func (p *parting) delimit(t *token.Token) {
	n := len(p.levels)
	for p.brackets > 0 && p.levels[n-1].kind == token.MappingKeyType {
		n--
	}
	p.leave(n)
	p.complete()
	if t.Type != token.CollectEntryType && p.brackets > 0 {
		p.leave(n - 1)
	}
}

// complete adds what is missing of the newest member: a text after a tag, a null, or a colon and a null.
func (p *parting) complete() {
	top := p.top()
	if tokens := p.parts[top.part].tokens; len(tokens) > 0 && tokens[len(tokens)-1].Type == token.TagType {
		p.put(token.DoubleQuote("", `""`, p.after()))
		top.pending = false
	}
	if top.bare { // as a in {a, b: c}
		tokens := p.parts[top.part].tokens
		p.shorten(tokens[len(tokens)-1])
		p.put(token.MappingValue(p.after()))
	}
	if top.bare || top.pending {
		p.put(p.null())
	}
	top.bare, top.pending = false, false
}

func (p *parting) null() *token.Token {
	null := token.New("null", " null", p.after())
	null.Type = token.ImplicitNullType
	return null
}

// after is the place after the newest token.
func (p *parting) after() *token.Position {
	tokens := p.parts[p.top().part].tokens
	at := *tokens[len(tokens)-1].Position
	at.Column++
	return &at
}
