package batch

import (
	"encoding/json"
	"strings"
	"time"
)

// link is where a URL of a file stands in a list of batch files.
type link struct {
	from, to int // of the string, with its quotes
	url      string
	expiry   time.Time // zero: none is stated
}

// findLinks returns the value[].url of a list, in order; nil if the text is no JSON object.
// All else has to stay byte for byte, so that it is not decoded and encoded again.
func findLinks(text []byte) (all []link) {
	s := scanner{text: text}
	if !json.Valid(text) || s.next() != '{' {
		return nil
	}
	s.object(func(key string) {
		if key != "value" || s.next() != '[' {
			s.skip()
			return
		}
		s.array(func() {
			if s.next() == '{' {
				all = append(all, s.item()...)
			} else {
				s.skip()
			}
		})
	})
	return all
}

// item returns the links of one item: usually one.
func (s *scanner) item() (links []link) {
	var expiry time.Time
	s.object(func(key string) {
		isString := s.next() == '"'
		switch {
		case isString && key == "url":
			from := s.at
			if address := s.string(); address != "" {
				links = append(links, link{from: from, to: s.at, url: address})
			}
		case isString && key == "expiry":
			expiry, _ = time.Parse(time.RFC3339, s.string()) // zero in another format
		default:
			s.skip()
		}
	})
	for i := range links {
		links[i].expiry = expiry
	}
	return links
}

// scanner walks over JSON that is known to be valid.
type scanner struct {
	text []byte
	at   int
}

// next returns the first character that is no white space, and stops at it.
func (s *scanner) next() byte {
	for strings.IndexByte(" \t\r\n", s.text[s.at]) >= 0 {
		s.at++
	}
	return s.text[s.at]
}

// object calls member at the value of each member of the object that begins here.
func (s *scanner) object(member func(key string)) {
	s.elements('}', func() {
		key := s.string()
		s.next() // the colon
		s.at++
		s.next()
		member(key)
	})
}

// array calls element at each element of the array that begins here.
func (s *scanner) array(element func()) { s.elements(']', element) }

func (s *scanner) elements(end byte, element func()) {
	s.at++
	for s.next() != end {
		if s.text[s.at] == ',' {
			s.at++
			s.next()
		}
		element()
	}
	s.at++
}

// string returns the string that begins here, decoded, and stops behind it.
func (s *scanner) string() (decoded string) {
	from := s.at
	s.skipString()
	_ = json.Unmarshal(s.text[from:s.at], &decoded) // valid
	return decoded
}

func (s *scanner) skipString() {
	for s.at++; s.text[s.at] != '"'; s.at++ {
		if s.text[s.at] == '\\' {
			s.at++
		}
	}
	s.at++
}

// skip stops behind the value that begins here.
func (s *scanner) skip() {
	depth := 0
	for {
		switch c := s.text[s.at]; {
		case c == '"':
			s.skipString()
		case c == '{' || c == '[':
			depth++
			s.at++
		case c == '}' || c == ']':
			depth--
			s.at++
		case depth > 0 && strings.IndexByte(", :\t\r\n", c) >= 0:
			s.at++
		default:
			s.skipLiteral()
		}
		if depth == 0 {
			return
		}
	}
}

// skipLiteral stops behind a number, true, false or null.
func (s *scanner) skipLiteral() {
	for s.at < len(s.text) && strings.IndexByte(",]} :\t\r\n", s.text[s.at]) < 0 {
		s.at++
	}
}
