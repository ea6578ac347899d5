package telemetry

import (
	"encoding/base64"
	"encoding/hex"
	"iter"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf16"
	"unicode/utf8"

	"mimecast-proxy/secret"
)

const (
	// maxTokens is how many tokens are remembered. An upstream may repeat one long
	// after it was replaced.
	maxTokens = 16
	// shortSecret is the length, in bytes, from which a secret is removed everywhere. A
	// shorter one is removed only as a whole word. One shorter than minSecret is never
	// removed: nearly every text would contain it by chance.
	shortSecret = 8
	minSecret   = 4
)

// Redactor removes the current secrets from texts. It finds them as they are, quoted,
// escaped, in base64 and in hexadecimal, also inside longer text. The zero value knows
// no secrets. A nil Redactor only returns texts unchanged. It is safe for concurrent
// use.
type Redactor struct {
	patterns atomic.Pointer[patterns]

	mu     sync.Mutex
	kinds  map[string]generations
	tokens []secret.Text // oldest first
	// known has the patterns in use, with the number of secrets that share each.
	known map[string]int
}

// generations are the current and the previous secrets of one kind.
type generations struct{ current, previous []secret.Text }

// Set replaces the secrets of a kind. The replaced ones are still removed until the
// next Set that changes the kind.
func (r *Redactor) Set(kind string, texts ...secret.Text) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.kinds[kind]
	if slices.EqualFunc(g.current, texts, secret.Text.Equal) {
		return
	}
	if r.kinds == nil {
		r.kinds = make(map[string]generations)
	}
	r.kinds[kind] = generations{current: slices.Clone(texts), previous: g.current}
	r.replace(g.previous, texts)
}

// Add adds a token. The Redactor removes the last 16 tokens.
func (r *Redactor) Add(token secret.Text) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.tokens, token.Equal) {
		return
	}
	var gone []secret.Text
	if len(r.tokens) == maxTokens {
		gone = slices.Clone(r.tokens[:1])
		r.tokens = slices.Delete(r.tokens, 0, 1)
	}
	r.tokens = append(r.tokens, token)
	r.replace(gone, []secret.Text{token})
}

// replace changes only the patterns of removed and added secrets. A proxy with many
// clients has 20,000 others.
func (r *Redactor) replace(gone, added []secret.Text) {
	if r.known == nil {
		r.known = make(map[string]int)
	}
	var less, more []string
	for _, text := range added {
		for pattern := range patternsOf(text.Reveal()) {
			if r.known[pattern]++; r.known[pattern] == 1 {
				more = append(more, pattern)
			}
		}
	}
	for _, text := range gone {
		for pattern := range patternsOf(text.Reveal()) {
			if r.known[pattern]--; r.known[pattern] == 0 {
				delete(r.known, pattern)
				less = append(less, pattern)
			}
		}
	}
	if len(less)+len(more) > 0 {
		slices.Sort(less)
		slices.Sort(more)
		r.patterns.Store(r.patterns.Load().with(less, more))
	}
}

// Redact returns s with each secret replaced by "[redacted]".
func (r *Redactor) Redact(s string) string { return r.redact(s, true) }

func (r *Redactor) redact(s string, words bool) string {
	if r == nil {
		return s
	}
	p := r.patterns.Load()
	if p == nil || len(s) < minSecret {
		return s
	}
	var b strings.Builder
	done := 0
	for _, found := range p.find(s, words) {
		b.WriteString(s[done:found.from])
		b.WriteString(redacted)
		done = found.to
	}
	if done == 0 {
		return s
	}
	return b.String() + s[done:]
}

// patternsOf yields the patterns of a secret: the secret and its encodings.
func patternsOf(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if len(s) < minSecret {
			return
		}
		ok := yield(s) && yieldEncoded(s, yield)
		if escaped := url.QueryEscape(s); ok && escaped != s { // as in Basic credentials (RFC 6749, section 2.3.1)
			yieldEncoded(escaped, yield)
		}
	}
}

func yieldEncoded(s string, yield func(string) bool) bool {
	digits := hex.EncodeToString([]byte(s))
	if !yield(digits) || !yield(strings.ToUpper(digits)) {
		return false
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if !yield(encoding.EncodeToString([]byte(s))) {
			return false
		}
		for shift := range 3 {
			if aligned := alignedBase64(encoding, s, shift); len(aligned) >= minSecret && !yield(aligned) {
				return false
			}
		}
	}
	return true
}

// alignedBase64 returns the part of s's base64 that is the same in every longer text.
// shift is the offset of s in that text, modulo 3.
func alignedBase64(encoding *base64.Encoding, s string, shift int) string {
	encoded := encoding.EncodeToString(append(make([]byte, shift), s...))
	return encoded[(shift*8+5)/6 : (shift+len(s))*8/6]
}

type span struct{ from, to int }

// escapes has the characters that begin an escape sequence.
const escapes = `\%+`

// runEdge is how many backslashes at each end of a run are checked one by one. A
// pattern that begins further inside is also found from the run's beginning. Without
// this limit, a text of only backslashes would take quadratic time.
const runEdge = 32

// find returns the non-overlapping spans of s that contain patterns, in order. Text
// without escapes, the usual case, takes 1 to 2 ns per byte.
func (p *patterns) find(s string, words bool) (spans []span) {
	last := len(s) - minSecret // a match is never shorter than its pattern
	escape := -1               // index of the next escape
	var run span               // last run of backslashes
	for i := 0; i <= last; i++ {
		if escape < i {
			if escape = strings.IndexAny(s[i:], escapes); escape < 0 {
				escape = len(s)
			} else {
				escape += i
			}
		}
		if i = p.nextCandidate(s, i, escape); i > last {
			break
		}
		if s[i] == '\\' && i >= run.to {
			run = span{i, i + countBackslashes(s[i:])}
		}
		if inside := i - run.from; i < run.to && inside > runEdge && run.to-i > runEdge {
			i = run.to - runEdge - 1
			continue
		}
		end := p.longestMatch(s, i, escape, words)
		switch n := len(spans) - 1; {
		case end < 0:
		case n >= 0 && i < spans[n].to:
			spans[n].to = max(spans[n].to, end)
		default:
			spans = append(spans, span{i, end})
		}
	}
	return spans
}

// isWord reports whether s[from:to] is not next to letters or digits. It is false for a
// negative to.
func isWord(s string, from, to int) bool {
	return to >= 0 && (from == 0 || !isAlphanumeric(s[from-1])) && (to == len(s) || !isAlphanumeric(s[to]))
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf
}

// matcher compares a pattern with a text in which each character may be escaped, even
// several times.
type matcher struct {
	text  string
	steps int // steps left; they bound the cost of a text full of escapes
}

// match returns the end of the pattern if it begins at m.text[i:], else -1.
func (m *matcher) match(pattern string, i int) int {
	for pattern != "" {
		if m.steps--; m.steps < 0 || i >= len(m.text) {
			return -1
		}
		rest := m.text[i:]
		switch {
		case pattern[0] == '\\' || rest[0] == '\\':
			return m.matchBackslashes(pattern, i)
		case pattern[0] == '%' && rest[0] == '%':
			return m.matchPercent(pattern, i)
		case pattern[0] == rest[0]:
			pattern, i = pattern[1:], i+1
		default:
			decoded, size := unescape(rest)
			if !beginsWith(pattern, decoded) {
				return -1
			}
			pattern, i = pattern[len(decoded):], i+size
		}
	}
	return i
}

// matchPercent continues match at a % in both the pattern and the text. Each escaping
// turns % into %25.
func (m *matcher) matchPercent(pattern string, i int) int {
	for size := 1; ; size += len("25") {
		if end := m.match(pattern[1:], i+size); end >= 0 {
			return end
		}
		if !strings.HasPrefix(m.text[i+size:], "25") {
			return -1
		}
	}
}

// matchBackslashes continues match at backslashes in the pattern, the text or both.
// Quoting only adds backslashes. So the pattern's backslashes match at least as many in
// the text.
func (m *matcher) matchBackslashes(pattern string, i int) int {
	wanted, have := countBackslashes(pattern), countBackslashes(m.text[i:])
	after := pattern[wanted:]
	if have >= wanted {
		if after == "" { // the last of an odd number escapes the next character
			return i + have&^1
		}
		if end := m.matchPlain(after, i+have); end >= 0 {
			return end
		}
	}
	if have > wanted && wanted > 0 { // the last one escapes the next character
		last := i + have - 1
		if decoded, size := unescape(m.text[last:]); beginsWith(after, decoded) {
			return m.match(after[len(decoded):], last+size)
		}
	}
	decoded, size := unescape(m.text[i:])
	if beginsWith(pattern, decoded) {
		return m.match(pattern[len(decoded):], i+size)
	}
	return -1
}

// beginsWith reports whether a pattern begins with a decoded escape. A space that is
// escaped twice is an escaped plus.
func beginsWith(pattern, decoded string) bool {
	return decoded != "" && strings.HasPrefix(pattern, decoded) || decoded == "+" && pattern[0] == ' '
}

// matchPlain continues match after a backslash, which may escape the next character as
// itself.
func (m *matcher) matchPlain(pattern string, i int) int {
	if i < len(m.text) && m.text[i] == pattern[0] {
		return m.match(pattern[1:], i+1)
	}
	return m.match(pattern, i)
}

func countBackslashes(s string) int { return len(s) - len(strings.TrimLeft(s, `\`)) }

// unescape decodes the escape at the beginning of s, and returns its length. It knows
// the escapes of URLs and of strings in Go, JSON and similar languages. It returns ""
// and 0 if there is no escape.
func unescape(s string) (decoded string, size int) {
	switch s[0] {
	case '+':
		return " ", 1
	case '%':
		size = 1
		for strings.HasPrefix(s[size:], "25") { // escaped several times
			size += len("25")
		}
		if c, ok := parseHex(s, size, 2); ok {
			return string([]byte{byte(c)}), size + 2
		}
		if size > 1 {
			return "%", size
		}
	case '\\':
		size = countBackslashes(s)
		if size == len(s) {
			return "", 0
		}
		switch s[size] {
		case 'x':
			return unescapeNumber(s, size+1, 2)
		case 'u':
			return unescapeNumber(s, size+1, 4)
		case 'U':
			return unescapeNumber(s, size+1, 8)
		}
	}
	return "", 0
}

// unescapeNumber decodes the hexadecimal digits at s[from:]. After the first half of a
// surrogate pair, as in JSON, it also decodes the second half.
func unescapeNumber(s string, from, digits int) (string, int) {
	n, ok := parseHex(s, from, digits)
	if !ok {
		return "", 0
	}
	if digits == 2 {
		return string([]byte{byte(n)}), from + digits
	}
	r, size := rune(n), from+digits
	if utf16.IsSurrogate(r) {
		next := size + countBackslashes(s[size:])
		if next < len(s) && s[next] == 'u' {
			if low, ok := parseHex(s, next+1, digits); ok {
				return string(utf16.DecodeRune(r, rune(low))), next + 1 + digits
			}
		}
	}
	return string(r), size
}

// parseHex parses the given number of hexadecimal digits at s[from:].
func parseHex(s string, from, digits int) (uint64, bool) {
	if len(s) < from+digits {
		return 0, false
	}
	n, err := strconv.ParseUint(s[from:from+digits], 16, 32)
	return n, err == nil
}
