package telemetry

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxText limits a scrubbed text, in bytes.
	maxText  = 1024
	redacted = "[redacted]"
	ellipsis = "…"
)

// quotedPhrases are phrases after which net/http quotes what a peer sent. The rest of
// such a text may be anything, even an echoed token.
var quotedPhrases = []string{
	"authorization",
	"malformed http",
	"malformed mime header",
	"unsolicited response",
	"bad content-length",
	"transfer encoding",
	`access_token"`,
	"access_token=",
	`client_secret"`,
	"client_secret=",
}

// Scrub makes a text safe to log and show: one line of printable characters, of about 1
// KiB at most. It removes bearer tokens, query strings, user names and passwords in
// URLs, and bytes of a peer that net/http quotes.
func Scrub(s string) string {
	s = strings.TrimSpace(s)
	s = oneLine(dropQuotedPeerData(s))
	s = redactBearer(s)
	s = redactURLs(s)
	return truncate(s, maxText)
}

// truncate returns at most n bytes of s. If it cuts s, it adds an ellipsis.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + ellipsis
}

func dropQuotedPeerData(s string) string {
	// Cut longer texts first, to bound the cost of the search.
	s = truncate(s, 4*maxText)
	end := len(s)
	for _, words := range quotedPhrases {
		if i := indexFold(s, words); i >= 0 {
			end = min(end, i+len(words))
		}
	}
	if end == len(s) {
		return s
	}
	return s[:end] + " " + redacted
}

// indexFold returns the index of a lower-case ASCII word in s, ignoring case, or -1.
func indexFold(s, lower string) int {
	for i := 0; i+len(lower) <= len(s); i++ {
		if s[i]|0x20 == lower[0]|0x20 && strings.EqualFold(s[i:i+len(lower)], lower) {
			return i
		}
	}
	return -1
}

// oneLine escapes unprintable characters as Go's string literals do.
func oneLine(s string) string {
	if printable(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // invalid UTF-8 becomes U+FFFD
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// betweenBearer has the characters between the word Bearer and its token, plain or
// escaped: space, tab, quotes and colon. It may also match the token's beginning, which
// is removed in any case.
const betweenBearer = " :=\"'%20\\t"

const bearer = "bearer"

// redactBearer replaces the token after each word Bearer.
func redactBearer(s string) string {
	i := indexFold(s, bearer)
	if i < 0 {
		return s
	}
	var b strings.Builder
	for i >= 0 {
		i += len(bearer)
		b.WriteString(s[:i])
		s = s[i:]
		if n := tokenAfter(s); n > 0 {
			b.WriteString(" " + redacted)
			s = s[n:]
		}
		i = indexFold(s, bearer)
	}
	return b.String() + s
}

// tokenAfter returns the length of the token at the beginning of s, including the
// characters before it. It returns 0 if there is none, as in the words "a bearer
// token".
func tokenAfter(s string) int {
	n := 0
	for { // several times for "Bearer Bearer …", which some clients send
		rest := strings.TrimLeft(s[n:], betweenBearer)
		gap := len(s) - n - len(rest)
		size := strings.IndexFunc(rest, endsToken)
		if size < 0 {
			size = len(rest)
		}
		if gap == 0 || size == 0 {
			return n
		}
		n += gap + size
		if size < len(bearer) || !strings.EqualFold(rest[size-len(bearer):size], bearer) {
			break
		}
	}
	if s[:n] == " token" && (n == len(s) || strings.IndexByte(";,)", s[n]) >= 0) {
		return 0
	}
	return n
}

// endsToken reports whether r cannot be part of a token. Beyond the b64token of RFC
// 6750, section 2.1, doubtful characters count as part of the token.
func endsToken(r rune) bool { return strings.ContainsRune(" \"'<>,;)]}\\", r) }

// redactURLs removes user names and passwords from URLs. It also removes text after a
// question mark, up to the next space or quote.
func redactURLs(s string) string {
	if !strings.Contains(s, "?") && !strings.Contains(s, "://") {
		return s
	}
	var b strings.Builder
	for word := range strings.SplitAfterSeq(s, " ") {
		b.WriteString(redactURL(word))
	}
	return b.String()
}

func redactURL(word string) string {
	if scheme, rest, ok := strings.Cut(word, "://"); ok {
		end := strings.IndexAny(rest, "/?#\"")
		if end < 0 {
			end = len(rest)
		}
		word = scheme + "://" + rest[strings.LastIndexByte(rest[:end], '@')+1:]
	}
	path, query, _ := strings.Cut(word, "?")
	end := strings.IndexAny(query, "\"' ")
	if end < 0 {
		end = len(query)
	}
	if end == 0 {
		return word
	}
	return path + "?" + ellipsis + query[end:]
}
