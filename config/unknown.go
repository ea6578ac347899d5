package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// notOurs matches names that Kubernetes makes for a Service called "proxy" or
// "mimecast".
var notOurs = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_|$)`)

// unknown returns a warning for each MIMECAST_ or PROXY_ name that means
// nothing here: an ignored typo is an outage later.
func (j *judge) unknown() []string {
	known := []string{"MIMECAST_PROXY_URL"} // ours, for the command of run
	for _, v := range Variables() {
		known = append(known, v.Name)
		if v.File {
			known = append(known, v.Name+"_FILE")
		}
	}
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(j.environ)) {
		ours := strings.HasPrefix(name, "MIMECAST_") || strings.HasPrefix(name, "PROXY_")
		if !ours || slices.Contains(known, name) || notOurs.MatchString(name) {
			continue
		}
		warning := fmt.Sprintf("%s is not a variable of this program and is ignored", name)
		if near := nearest(name, known); near != "" {
			warning += fmt.Sprintf("; did you mean %s?", near)
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

// nearest returns the name that is fewest edits away; none where that is more
// than a third of the name.
func nearest(name string, known []string) string {
	best := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
	if distance(name, best) > len(name)/3 {
		return ""
	}
	return best
}

// distance is the number of insertions, deletions and substitutions between
// two strings (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for k := range len(b) {
			cost := 1
			if a[i] == b[k] {
				cost = 0
			}
			diagonal, row[k+1] = row[k+1], min(row[k+1]+1, row[k]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
