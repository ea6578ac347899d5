package telemetry

import (
	"slices"
	"sort"
)

const (
	// fewPatterns is the number of patterns that are compared one by one instead of
	// narrowed further.
	fewPatterns = 3
	// narrowedBytes is the maximum number of first bytes for narrowing. Keys of the
	// same issuer have a common prefix, and so do their encodings.
	narrowedBytes = 24
)

// patterns are the texts to look for, sorted, each of at least minSecret bytes. They
// are immutable once in use.
type patterns struct {
	texts []string
	heads []uint32 // the first four bytes of each
	// byTwo is indexed by a text's first two bytes. It has the index of the first text
	// with those bytes or larger ones.
	byTwo [1<<16 + 1]uint32
	// filter has a set bit for the hash of each head.
	filter [1 << 13]uint64
}

// with returns the patterns without less and with more. Both must be sorted; p may be
// nil.
func (p *patterns) with(less, more []string) *patterns {
	var old []string
	if p != nil {
		old = p.texts
	}
	q := &patterns{texts: make([]string, 0, len(old)-len(less)+len(more))}
	for len(less) > 0 || len(more) > 0 { // copies the texts between two changes at once
		if len(more) == 0 || len(less) > 0 && less[0] < more[0] {
			at, _ := slices.BinarySearch(old, less[0])
			q.texts = append(q.texts, old[:at]...)
			old, less = old[at+1:], less[1:]
		} else {
			at, _ := slices.BinarySearch(old, more[0])
			q.texts = append(append(q.texts, old[:at]...), more[0])
			old, more = old[at:], more[1:]
		}
	}
	q.texts = append(q.texts, old...)
	if len(q.texts) == 0 {
		return nil
	}
	q.index()
	return q
}

func (p *patterns) index() {
	p.heads = make([]uint32, len(p.texts))
	for i, text := range p.texts {
		head := fourBytes(text)
		p.heads[i] = head
		p.byTwo[head>>16+1] = uint32(i + 1)
		h := hash(head)
		p.filter[h/64] |= 1 << (h % 64)
	}
	last := uint32(0)
	for i, end := range p.byTwo {
		last = max(last, end)
		p.byTwo[i] = last
	}
}

// hash returns a 19-bit hash of four bytes.
func hash(four uint32) uint32 { return four * 2654435761 >> 13 }

// fourBytes returns the first four bytes of s, in an order that sorts as s does.
func fourBytes(s string) uint32 {
	return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3])
}

// nextCandidate returns where in s[from:to], which has no escapes, a pattern may begin.
// Near the end of that range, it cannot check the first four bytes and returns the
// position.
func (p *patterns) nextCandidate(s string, from, to int) int {
	if to-from < minSecret {
		return from
	}
	four := fourBytes(s[from:]) >> 8
	for i := from + minSecret - 1; i < to; i++ {
		four = four<<8 | uint32(s[i])
		if h := hash(four); p.filter[h/64]&(1<<(h%64)) != 0 {
			return i - minSecret + 1
		}
	}
	return to - minSecret + 1
}

// longestMatch returns the end of the longest pattern that begins at s[i:], or -1.
// escape is the index of the next escape in s.
func (p *patterns) longestMatch(s string, i, escape int, words bool) int {
	m := search{patterns: p, text: s, from: i, words: words, longest: -1}
	if escape-i < minSecret {
		m.narrow(group{0, len(p.texts), 0}, i)
		return m.longest
	}
	head := fourBytes(s[i:])
	from, to := int(p.byTwo[head>>16]), int(p.byTwo[head>>16+1])
	from += sort.Search(to-from, func(n int) bool { return p.heads[from+n] >= head })
	to = from + sort.Search(to-from, func(n int) bool { return p.heads[from+n] > head })
	if from < to {
		m.narrow(group{from, to, minSecret}, i+minSecret)
	}
	return m.longest
}

// group is a range of patterns whose first common bytes are the same.
type group struct{ from, to, common int }

// search looks for the longest pattern at one position of a text.
type search struct {
	*patterns
	text    string
	from    int
	words   bool
	longest int // end of the longest pattern so far, or -1
}

// narrow tries the patterns of a group whose next byte may match text[i:].
func (m *search) narrow(g group, i int) {
	for g.from < g.to && len(m.texts[g.from]) == g.common { // complete patterns sort before longer ones
		m.try(group{g.from, g.from + 1, g.common})
		g.from++
	}
	if g.to-g.from <= fewPatterns || g.common == narrowedBytes || i >= len(m.text) {
		m.try(g)
		return
	}
	switch c := m.text[i]; c {
	case '+':
		m.narrow(m.next(g, '+'), i+1)
		m.narrow(m.next(g, ' '), i+1)
	case '%':
		m.try(m.next(g, '%'))
		m.narrowEscaped(g, i)
	case '\\':
		m.try(m.next(g, '\\'))
		m.narrowEscaped(g, i)
		if after := i + countBackslashes(m.text[i:]); after < len(m.text) {
			m.narrow(g, after)
		}
	default:
		m.narrow(m.next(g, c), i+1)
	}
}

// narrowEscaped does the same for the decoded escape at text[i:].
func (m *search) narrowEscaped(g group, i int) {
	decoded, size := unescape(m.text[i:])
	switch len(decoded) {
	case 0:
	case 1:
		m.narrow(m.next(g, decoded[0]), i+size)
		if decoded == "+" {
			m.narrow(m.next(g, ' '), i+size)
		}
	default:
		m.try(m.next(g, decoded[0]))
	}
}

// next returns the patterns of a group whose next byte is c. All patterns in the group
// must have a next byte.
func (p *patterns) next(g group, c byte) group {
	switch {
	case g.common == 0:
		return group{int(p.byTwo[int(c)<<8]), int(p.byTwo[(int(c)+1)<<8]), 1}
	case g.common == 1 && g.from < g.to:
		two := int(p.texts[g.from][0])<<8 | int(c)
		return group{int(p.byTwo[two]), int(p.byTwo[two+1]), 2}
	}
	from := g.from + sort.Search(g.to-g.from, func(n int) bool { return p.texts[g.from+n][g.common] >= c })
	to := from + sort.Search(g.to-from, func(n int) bool { return p.texts[from+n][g.common] > c })
	return group{from, to, g.common + 1}
}

// try compares each pattern of a group with the text.
func (m *search) try(g group) {
	for _, pattern := range m.texts[g.from:g.to] {
		match := matcher{text: m.text, steps: 4*len(pattern) + 64}
		end := match.match(pattern, m.from)
		if len(pattern) >= shortSecret || m.words && isWord(m.text, m.from, end) {
			m.longest = max(m.longest, end)
		}
	}
}
