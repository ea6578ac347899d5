package admin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// formatDuration returns a duration in its two largest units.
func formatDuration(d time.Duration) string {
	s := int64(d.Round(time.Second) / time.Second)
	switch {
	case s <= 0:
		return "0 s"
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
	}
}

// formatAgo returns when something was.
func formatAgo(now, at time.Time) string {
	if now.Sub(at) < time.Second {
		return "just now"
	}
	return formatDuration(now.Sub(at)) + " ago"
}

// formatUntil returns when something is due.
func formatUntil(at, now time.Time) string {
	if at.Sub(now) < time.Second/2 {
		return "now"
	}
	return "in " + formatDuration(at.Sub(now))
}

// formatMS returns milliseconds as a person reads them.
func formatMS(v float64) string {
	switch {
	case v < .995:
		return fmt.Sprintf("%.2f ms", v)
	case v < 9.95:
		return fmt.Sprintf("%.1f ms", v)
	case v < 999.5:
		return fmt.Sprintf("%.0f ms", v)
	case v < 9950:
		return fmt.Sprintf("%.1f s", v/1000)
	case v < 59500:
		return fmt.Sprintf("%.0f s", v/1000)
	default:
		return formatDuration(time.Duration(v * float64(time.Millisecond)))
	}
}

// plural returns "1 request" or "2 requests".
func plural[N int | uint32 | uint64 | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// dateTime is how the page writes times.
const dateTime = "2006-01-02 15:04:05"

// formatStamp returns a time with its zone.
func formatStamp(t time.Time) string { return t.UTC().Format(dateTime) + " UTC" }

// formatWindow returns a window as it follows "the last".
func formatWindow(seconds int) string {
	switch {
	case seconds == 60:
		return "minute"
	case seconds%60 == 0:
		return fmt.Sprintf("%d minutes", seconds/60)
	default:
		return fmt.Sprintf("%d s", seconds)
	}
}

// formatBytes returns a number of bytes.
func formatBytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	default:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
}

// formatCount returns a count; a question mark for nil.
func formatCount(v *float64) string {
	if v == nil {
		return "?"
	}
	return fmt.Sprintf("%.0f", math.Trunc(*v))
}

// sentence makes a text begin and end like one.
func sentence(s string) string {
	s = capitalize(s)
	if s == "" || strings.ContainsAny(s[len(s)-1:], ".?!") {
		return s
	}
	return s + "."
}

func capitalize(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	if size == 0 {
		return s
	}
	return string(unicode.ToUpper(first)) + s[size:]
}

// printable escapes the characters of a client's text that do not print, or that change
// the direction of the text around them. The nodes escape HTML.
func printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

func unprintable(r rune) bool { return !strconv.IsPrint(r) }
