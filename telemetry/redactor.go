package telemetry

import (
	"encoding/base64"
	"encoding/hex"
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
	// maxTokens is how many of the last tokens are remembered: an upstream may
	// repeat one long after it was replaced.
	maxTokens = 16
	// shortSecret is from how many characters on a secret is removed wherever it
	// stands. A shorter one is removed where it stands as a word, and one below
	// minSecret not at all: nearly every text would have it by chance.
	shortSecret = 8
	minSecret   = 4
)

// Redactor removes the secrets in force from texts, literally: as they are, and
// quoted, escaped, in base64 and in hexadecimal, alone or as part of more. The
// zero value knows no secret, and a nil one never does. It may be used by
// several goroutines.
type Redactor struct {
	patterns atomic.Pointer[patterns]

	mu     sync.Mutex
	kinds  map[string]generations
	tokens []secret.Text // the oldest first
}

// generations are the secrets of one kind: those in force, and those before.
type generations struct{ current, previous []secret.Text }

// Set replaces the secrets of a kind. Those that they replace are still removed,
// until they are replaced in turn.
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
	r.rebuild()
}

// Add notes a token. The last 16 are removed.
func (r *Redactor) Add(token secret.Text) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.tokens, token.Equal) {
		return
	}
	if len(r.tokens) == maxTokens {
		r.tokens = slices.Delete(r.tokens, 0, 1)
	}
	r.tokens = append(r.tokens, token)
	r.rebuild()
}

func (r *Redactor) rebuild() {
	p := &patterns{}
	for _, token := range r.tokens {
		p.addSecret(token.Reveal())
	}
	for _, g := range r.kinds {
		for _, text := range slices.Concat(g.current, g.previous) {
			p.addSecret(text.Reveal())
		}
	}
	if p.count == 0 {
		p = nil
	}
	r.patterns.Store(p)
}

// Redact returns s with each secret in it replaced by [redacted].
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

// patterns are texts to look for, by what they begin with. They are not changed
// once they are in use.
type patterns struct {
	count    int
	byFirst  [256][]string
	prefixes [1 << 13]uint64 // a bit for each hash of a pattern's first four bytes
}

func (p *patterns) addSecret(s string) {
	if len(s) < minSecret {
		return
	}
	p.add(s)
	p.addEncoded(s)
	if escaped := url.QueryEscape(s); escaped != s { // as Basic credentials have it (RFC 6749, section 2.3.1)
		p.addEncoded(escaped)
	}
}

func (p *patterns) addEncoded(s string) {
	p.add(hex.EncodeToString([]byte(s)))
	p.add(strings.ToUpper(hex.EncodeToString([]byte(s))))
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		p.add(encoding.EncodeToString([]byte(s)))
		for shift := range 3 {
			p.add(alignedBase64(encoding, s, shift))
		}
	}
}

// alignedBase64 returns what is always there of s in the base64 of a longer text that s
// begins in at a multiple of three, plus shift.
func alignedBase64(encoding *base64.Encoding, s string, shift int) string {
	encoded := encoding.EncodeToString(append(make([]byte, shift), s...))
	return encoded[(shift*8+5)/6 : (shift+len(s))*8/6]
}

func (p *patterns) add(text string) {
	if len(text) < minSecret || slices.Contains(p.byFirst[text[0]], text) {
		return
	}
	p.byFirst[text[0]] = append(p.byFirst[text[0]], text)
	h := hash(fourBytes(text))
	p.prefixes[h/64] |= 1 << (h % 64)
	p.count++
}

// hash returns a number of 19 bits for four bytes.
func hash(four uint32) uint32 { return four * 2654435761 >> 13 }

// fourBytes returns the first four bytes of s, as nextCandidate has them.
func fourBytes(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

type span struct{ from, to int }

// escapes are the characters that escapes begin with.
const escapes = `\%+`

// runEdge is how many backslashes at each end of a run are looked at one by one. What
// begins further inside is found from the run's beginning too. Without that, a text of
// nothing but backslashes would cost the square of its length.
const runEdge = 32

// find returns where patterns are in s, in order and apart. Texts without escapes,
// which nearly all are, cost a nanosecond or two a byte.
func (p *patterns) find(s string, words bool) (spans []span) {
	escape := -1 // where the next one is
	var run span // the last run of backslashes
	for i := 0; i < len(s); i++ {
		if escape < i {
			if escape = strings.IndexAny(s[i:], escapes); escape < 0 {
				escape = len(s)
			} else {
				escape += i
			}
		}
		if i = p.nextCandidate(s, i, escape); i == len(s) {
			break
		}
		if s[i] == '\\' && i >= run.to {
			run = span{i, i + countBackslashes(s[i:])}
		}
		if inside := i - run.from; i < run.to && inside > runEdge && run.to-i > runEdge {
			i = run.to - runEdge - 1
			continue
		}
		end := p.longestMatch(s, i, words)
		switch last := len(spans) - 1; {
		case end < 0:
		case last >= 0 && i < spans[last].to:
			spans[last].to = max(spans[last].to, end)
		default:
			spans = append(spans, span{i, end})
		}
	}
	return spans
}

// nextCandidate returns where in s[from:to], which has no escapes, a pattern may begin.
// Those that may go on beyond it are not known by their first four bytes.
func (p *patterns) nextCandidate(s string, from, to int) int {
	if to-from < minSecret {
		return from
	}
	four := fourBytes(s[from:]) << 8
	for i := from + minSecret - 1; i < to; i++ {
		four = four>>8 | uint32(s[i])<<24
		if h := hash(four); p.prefixes[h/64]&(1<<(h%64)) != 0 {
			return i - minSecret + 1
		}
	}
	return to - minSecret + 1
}

// longestMatch returns where the longest pattern ends that begins at s[i:]; -1 for none.
func (p *patterns) longestMatch(s string, i int, words bool) int {
	end := p.beginningWith(s[i], s, i, words)
	if !strings.Contains(escapes, s[i:i+1]) {
		return end
	}
	if decoded, _ := unescape(s[i:]); decoded != "" {
		end = max(end, p.beginningWith(decoded[0], s, i, words))
		if decoded == "+" {
			end = max(end, p.beginningWith(' ', s, i, words))
		}
	}
	if after := i + countBackslashes(s[i:]); after > i && after < len(s) {
		end = max(end, p.beginningWith(s[after], s, i, words))
	}
	return end
}

func (p *patterns) beginningWith(first byte, s string, i int, words bool) int {
	longest := -1
	for _, pattern := range p.byFirst[first] {
		m := matcher{text: s, steps: 4*len(pattern) + 64}
		end := m.match(pattern, i)
		if len(pattern) >= shortSecret || words && isWord(s, i, end) {
			longest = max(longest, end)
		}
	}
	return longest
}

// isWord reports whether s[from:to] stands apart from letters and digits.
func isWord(s string, from, to int) bool {
	return to >= 0 && (from == 0 || !isAlphanumeric(s[from-1])) && (to == len(s) || !isAlphanumeric(s[to]))
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf
}

// matcher compares a pattern with a text in which each character may be escaped,
// more than once too.
type matcher struct {
	text  string
	steps int // that are left: a text of nothing but escapes must not cost the more
}

// match returns where the pattern ends that begins at m.text[i:]; -1 for none.
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

// matchPercent goes on at a % in both, which each escaping makes %25 of.
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

// matchBackslashes goes on at backslashes in the pattern, in the text, or both.
// Quoting adds some and takes none away, so that those of the pattern are matched
// by as many or more.
func (m *matcher) matchBackslashes(pattern string, i int) int {
	wanted, have := countBackslashes(pattern), countBackslashes(m.text[i:])
	after := pattern[wanted:]
	if have >= wanted {
		if after == "" { // the last of an odd number escapes what follows
			return i + have&^1
		}
		if end := m.matchPlain(after, i+have); end >= 0 {
			return end
		}
	}
	if have > wanted && wanted > 0 { // the last is the next character's
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

// beginsWith reports whether a pattern begins with what an escape stands for. A
// space that is escaped twice is an escaped plus.
func beginsWith(pattern, decoded string) bool {
	return decoded != "" && strings.HasPrefix(pattern, decoded) || decoded == "+" && pattern[0] == ' '
}

// matchPlain is match for a text whose first character follows a backslash.
func (m *matcher) matchPlain(pattern string, i int) int {
	if i < len(m.text) && m.text[i] == pattern[0] {
		return m.match(pattern[1:], i+1)
	}
	return m.match(pattern, i)
}

func countBackslashes(s string) int { return len(s) - len(strings.TrimLeft(s, `\`)) }

// unescape decodes the escape that s begins with, of a URL or of a string of Go,
// JSON or the like, and returns how long it is. It returns nothing where there
// is none.
func unescape(s string) (decoded string, size int) {
	switch s[0] {
	case '+':
		return " ", 1
	case '%':
		size = 1
		for strings.HasPrefix(s[size:], "25") { // escaped again
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

// unescapeNumber decodes the digits at s[from:], and where they are the half of a
// character (JSON has UTF-16's), the other half.
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

// parseHex returns the hexadecimal number of so many digits at s[from:].
func parseHex(s string, from, digits int) (uint64, bool) {
	if len(s) < from+digits {
		return 0, false
	}
	n, err := strconv.ParseUint(s[from:from+digits], 16, 32)
	return n, err == nil
}
