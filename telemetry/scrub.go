package telemetry

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxText bounds what is kept of a text that a person may read.
	maxText  = 1024
	redacted = "[redacted]"
	ellipsis = "…"
)

// quotedPhrases are the phrases after which net/http quotes what a peer sent. The
// rest of such a text may be anything, a token that was echoed among it.
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

// Scrub makes a text fit to be logged and shown: one line of printable
// characters, of bounded length, without bearer tokens, query strings, user
// names in URLs, or bytes that net/http quotes of a peer.
func Scrub(s string) string {
	s = strings.TrimSpace(s)
	s = oneLine(dropQuotedPeerData(s))
	s = redactBearer(s)
	s = redactURLs(s)
	return truncate(s, maxText)
}

// truncate returns the beginning of s, of at most n bytes and what marks a cut.
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
	// Longer texts are cut here first, so that the search is bounded too.
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

// indexFold is strings.Index for a lower-case ASCII word, in any case.
func indexFold(s, lower string) int {
	for i := 0; i+len(lower) <= len(s); i++ {
		if s[i]|0x20 == lower[0]|0x20 && strings.EqualFold(s[i:i+len(lower)], lower) {
			return i
		}
	}
	return -1
}

// oneLine escapes characters that are not printable, as Go's string literals do.
func oneLine(s string) string {
	if printable(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s { // bytes that are not UTF-8 become U+FFFD
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

// betweenBearer is what may stand between the word Bearer and its token, as
// itself or escaped: a space, a tab, quotes, a colon. Where it swallows the
// beginning of the token too, nothing is lost, since that is dropped as well.
const betweenBearer = " :=\"'%20\\t"

const bearer = "bearer"

// redactBearer replaces what follows the word Bearer.
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

// tokenAfter returns how many bytes a token takes that begins s, with what
// stands before it; 0 where there is none, as in the words "a bearer token".
func tokenAfter(s string) int {
	n := 0
	for { // more than once for "Bearer Bearer …", which people do send
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

// endsToken reports whether r cannot be part of a token (RFC 6750, b64token),
// liberally: what is doubtful is part of it.
func endsToken(r rune) bool { return strings.ContainsRune(" \"'<>,;)]}\\", r) }

// redactURLs drops the user name and password of URLs, and the text that
// follows a question mark up to the next space or quote.
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
