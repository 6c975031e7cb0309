package mock

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// question is a request in any of the APIs, and what its answer is made of.
type question struct {
	Model          string          `json:"model"`
	ModelID        string          `json:"model_id"`
	Stream         bool            `json:"stream"`
	StreamOptions  streamOptions   `json:"stream_options"`
	EncodingFormat string          `json:"encoding_format"`
	Messages       json.RawMessage `json:"messages"`
	System         json.RawMessage `json:"system"`
	Prompt         json.RawMessage `json:"prompt"`
	Input          json.RawMessage `json:"input"`
	Instructions   json.RawMessage `json:"instructions"`
	Tools          json.RawMessage `json:"tools"`

	number  int64 // of the request
	words   int   // in the answer
	created int64 // in Unix seconds
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

func (q *question) model() string {
	if q.Model == "" {
		return q.ModelID
	}
	return q.Model
}

// id is the answer's, which begins with prefix.
func (q *question) id(prefix string) string { return fmt.Sprintf("%sdemo%d", prefix, q.number) }

// input is how many tokens the question is taken to have: one for each four bytes.
func (q *question) input() int {
	n := 0
	for _, part := range [...]json.RawMessage{q.Messages, q.System, q.Prompt, q.Input, q.Instructions, q.Tools} {
		n += len(part)
	}
	return (n + 3) / 4
}

var words = strings.Fields("A sluice is a gate that lets through just as much water as the wheel below can use, and no more than that. ")

func word(i int) string {
	w := words[i%len(words)]
	if i > 0 {
		return " " + w
	}
	return w
}

func (q *question) text() string {
	var b strings.Builder
	for i := range q.words {
		b.WriteString(word(i))
	}
	return b.String()
}

// object is a JSON object whose members keep their order, as the providers' do: name, value, name, value.
type object []any

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i := 0; i < len(o); i += 2 {
		fmt.Fprintf(&b, ",%s:%s", encode(o[i]), encode(o[i+1]))
	}
	return append(append([]byte{'{'}, bytes.TrimPrefix(b.Bytes(), []byte{','})...), '}'), nil
}

// encode is v as JSON; text that is not JSON (verbatim) stands as it is.
func encode(v any) []byte {
	if text, ok := v.(verbatim); ok {
		return []byte(text)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// verbatim is what an event says that is not JSON.
type verbatim string
