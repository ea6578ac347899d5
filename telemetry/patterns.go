package telemetry

import (
	"slices"
	"sort"
)

const (
	// fewPatterns are so few that each is tried rather than their number narrowed.
	fewPatterns = 3
	// narrowedBytes is by how many first bytes patterns are narrowed at most: keys of
	// one make begin alike, and so do their encodings.
	narrowedBytes = 24
)

// patterns are texts to look for, each of at least minSecret bytes. They are sorted, and
// are not changed once they are in use.
type patterns struct {
	texts []string
	heads []uint32 // the first four bytes of each
	// byTwo has where in texts those begin whose first two bytes are the index or more.
	byTwo [1<<16 + 1]uint32
	// filter has a bit for each hash of a head.
	filter [1 << 13]uint64
}

// with returns the patterns without some, and with more. All are sorted; p may be nil.
func (p *patterns) with(less, more []string) *patterns {
	var old []string
	if p != nil {
		old = p.texts
	}
	q := &patterns{texts: make([]string, 0, len(old)-len(less)+len(more))}
	for len(less) > 0 || len(more) > 0 { // what is between two changes is copied at once
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

// hash returns a number of 19 bits for four bytes.
func hash(four uint32) uint32 { return four * 2654435761 >> 13 }

// fourBytes returns the first four bytes of s. They sort as s does.
func fourBytes(s string) uint32 {
	return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3])
}

// nextCandidate returns where in s[from:to], which has no escapes, a pattern may begin.
// Those that may go on beyond it are not known by their first four bytes.
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

// longestMatch returns where the longest pattern ends that begins at s[i:]; -1 for none.
// The next escape in s is at escape.
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

// group are the patterns from one to another, which have their first bytes in common.
type group struct{ from, to, common int }

// search looks for the longest pattern at one place of a text.
type search struct {
	*patterns
	text    string
	from    int
	words   bool
	longest int // where the longest pattern so far ends; -1: there is none
}

// narrow tries the patterns of a group whose next byte may be that at text[i:].
func (m *search) narrow(g group, i int) {
	for g.from < g.to && len(m.texts[g.from]) == g.common { // sorted before longer ones
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

// narrowEscaped is narrow for what the escape at text[i:] stands for.
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

// next returns those of a group whose next byte is c. None of the group ends before it.
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
