package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/goccy/go-yaml/scanner"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxTokens bounds the time that a file takes: a few microseconds for each.
	maxTokens = 300_000
	// maxTabs bounds the tabs of a line, maxAngles the characters < in a row, and maxEmpty the empty
	// lines in a row: the scanner's time grows with the square of each.
	maxTabs   = 100
	maxAngles = 100
	maxEmpty  = 100
)

// scannable returns an error for what the scanner would take long for, and for what it would not see:
// bytes that are not UTF-8, and control characters.
func scannable(b []byte) error {
	line, start, tabs, angles, empty := 1, 0, 0, 0, 0
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		message := ""
		if r != '<' {
			angles = 0
		}
		switch {
		case r == utf8.RuneError && size == 1:
			message = "not UTF-8"
		case r == '\n':
			if len(bytes.TrimSpace(b[start:i])) > 0 {
				empty = 0
			}
			line, start, tabs, empty = line+1, i+1, 0, empty+1
		case r == '\t':
			tabs++
		case r == '<':
			angles++
		case r < ' ' && r != '\r', r == 0x7f:
			message = "a control character; in double quotes it can be written as an escape"
		}
		switch {
		case tabs > maxTabs:
			message = fmt.Sprintf("more than %d tabs in a line; use spaces", maxTabs)
		case angles > maxAngles:
			message = fmt.Sprintf("more than %d characters < in a row", maxAngles)
		case empty > maxEmpty:
			message = fmt.Sprintf("more than %d empty lines in a row", maxEmpty)
		}
		if message != "" {
			return &syntaxError{position{line, utf8.RuneCount(b[start:max(start, i)]) + 1}, message}
		}
		i += size
	}
	return nil
}

// scan is the tokens of text without comments, up to the first mistake.
func scan(text string) (tokens token.Tokens, err error) {
	tokens, err = allTokens(text)
	if len(tokens) > maxTokens {
		message := fmt.Sprintf("more than %d names, values, brackets, colons, commas and dashes", maxTokens)
		return nil, mistake(tokens[maxTokens], message)
	}
	return joinColons(tokens), err
}

func allTokens(text string) (tokens token.Tokens, err error) {
	var s scanner.Scanner
	s.Init(text)
	for {
		some, err := s.Scan()
		for _, t := range some {
			switch t.Type {
			case token.InvalidType:
				return tokens, notYAML(t, t.Error)
			case token.CommentType:
			default:
				tokens = append(tokens, t)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return tokens, nil
		case err != nil:
			return tokens, err
		}
	}
}

// documentsOf are the tokens of each document that has any besides its markers.
func documentsOf(tokens token.Tokens) (documents []token.Tokens) {
	begin, content, directives := 0, false, false
	cut := func(end int) {
		if content {
			documents = append(documents, tokens[begin:end])
		}
		begin, content, directives = end, false, false
	}
	for i, t := range tokens {
		switch t.Type {
		case token.DocumentHeaderType:
			if !directives {
				cut(i)
			}
			directives = false
		case token.DocumentEndType:
			cut(i + 1)
		case token.DirectiveType:
			directives, content = directives || !content, true
		default:
			content = true
		}
	}
	cut(len(tokens))
	return documents
}
