package history

import (
	"slices"
	"time"

	"sluice/record"
)

// Group is the errors of one kind, model and upstream since the start.
type Group struct {
	Error    string    `json:"error"`
	Model    string    `json:"model,omitempty"`
	Upstream string    `json:"upstream,omitempty"`
	Count    uint64    `json:"count"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Status   int       `json:"status"`
	Message  string    `json:"message,omitempty"` // of the last
	Ref      string    `json:"ref"`               // of the last, in the record
}

type groupKey struct{ kind, model, upstream string }

// maxGroups bounds the groups. The one whose last error is the oldest goes.
const maxGroups = 200

// group adds an error to its group. A model that nobody was asked for is no name of ours.
func (b *Book) group(v record.View, now time.Time) {
	r := v.Request()
	key := groupKey{r.Error, "", r.Upstream}
	if r.Tried > 0 {
		key.model = r.Model
	}
	g := b.groups[key]
	if g == nil {
		if len(b.groups) >= maxGroups {
			b.dropOldest()
		}
		g = &Group{Error: key.kind, Model: key.model, Upstream: key.upstream, First: now.UTC()}
		b.groups[key] = g
	}
	g.Count++
	if g.Count == 1 || now.Sub(g.Last) >= time.Second { // a flood costs little
		e := v.Entry()
		g.Last, g.Message, g.Ref = now.UTC(), e.Message, e.Ref()
	}
	g.Status = r.Status
}

func (b *Book) dropOldest() {
	var oldest groupKey
	for key, g := range b.groups {
		if o := b.groups[oldest]; o == nil || g.Last.Before(o.Last) {
			oldest = key
		}
	}
	delete(b.groups, oldest)
}

// Groups are the errors in groups, those with the newest error first.
func (b *Book) Groups() []Group {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]Group, 0, len(b.groups))
	for _, g := range b.groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(x, y Group) int { return y.Last.Compare(x.Last) })
	return list
}
