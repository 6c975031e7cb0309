package keys

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Export is every key with its hash, in the order in which they were made. There is no secret in it.
func (s *Store) Export() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, _ := s.List(s.Count(), "")
	records := make([]json.RawMessage, 0, len(all))
	for _, k := range all {
		value, err := json.Marshal(k.record())
		if err != nil {
			panic("BUG: a key is not JSON: " + err.Error())
		}
		records = append(records, value)
	}
	return records
}

// Import takes keys that Export has given, of another store. Those that are here already as they are there count as
// known. The error is a *FieldError if one cannot be taken: then none is.
func (s *Store) Import(records []json.RawMessage) (added, known int, err error) {
	type fresh struct {
		spec *Spec
		hash Hash
	}
	var list []fresh
	for i, value := range records {
		spec, hash, err := read(value)
		if err == nil {
			err = s.fits(spec, hash)
		}
		if err != nil {
			return 0, 0, &FieldError{fmt.Sprintf("keys[%d]", i), err.Error()}
		}
		list = append(list, fresh{spec, hash})
	}
	for _, f := range list {
		s.mu.Lock() // for one at a time: others change keys too
		_, there := s.byID.Load(f.spec.ID)
		if !there {
			err = s.put(f.spec, f.hash, 0)
		}
		s.mu.Unlock()
		switch {
		case there:
			known++
		case err != nil:
			return added, known, err // those before are kept: the same import again goes on from here
		default:
			added++
		}
	}
	return added, known, nil
}

// fits reports whether a key of another store can be one of this.
func (s *Store) fits(spec *Spec, hash Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, there := s.byID.Load(spec.ID)
	if there && k.hash != hash {
		return errors.New("the key " + spec.ID + " is here already, with another secret")
	}
	if k, ok := s.byHash.Load(hash); ok && !there {
		return errors.New("its secret is that of the key " + k.Spec().ID)
	}
	return nil
}
