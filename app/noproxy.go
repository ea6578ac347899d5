package app

import (
	"slices"
	"strings"
)

// ownHosts are the names that lead to the proxy of Run, which no corporate proxy
// can reach.
var ownHosts = []string{"127.0.0.1", "localhost"}

// withoutCorporateProxy returns environ with NO_PROXY and no_proxy changed so
// that a program reaches this machine directly, and everything else as before.
//
// Go reads NO_PROXY first; curl and Python read no_proxy first. So both have a
// list. If only one has, the other gets the same, since every program reads the
// one that is set. If both differ, each keeps its own: every program goes on
// reading the list that it read before. An empty one counts as not set, as it
// does for Go and curl; Python alone takes an empty no_proxy for an empty list,
// even beside NO_PROXY.
//
// A list with an entry * stays as it is: curl and Python know * only alone. In a
// longer list they do not, and reach this machine directly only if the list has an
// entry for it.
func withoutCorporateProxy(environ []string) []string {
	upper, lower := lookup(environ, "NO_PROXY"), lookup(environ, "no_proxy")
	if upper == "" {
		upper = lower
	}
	if lower == "" {
		lower = upper
	}
	environ = without(environ, named("NO_PROXY", "no_proxy"))
	return append(environ, "NO_PROXY="+withOwnHosts(upper), "no_proxy="+withOwnHosts(lower))
}

// withOwnHosts adds those of ownHosts that a list lacks.
func withOwnHosts(list string) string {
	entries := strings.Split(list, ",")
	for i, e := range entries {
		entries[i] = strings.TrimSpace(e)
	}
	if slices.Contains(entries, "*") {
		return list
	}
	if slices.ContainsFunc(entries, func(e string) bool { return strings.ContainsAny(e, " \t") }) {
		// curl reads no further than the first blank inside an entry.
		return strings.Join(ownHosts, ",") + "," + list
	}
	list = strings.TrimRight(list, ", \t")
	for _, host := range ownHosts {
		if slices.Contains(entries, host) {
			continue
		}
		if list != "" {
			list += ","
		}
		list += host
	}
	return list
}

// lookup returns the value of a variable, the last one if there are several.
func lookup(environ []string, name string) string {
	for _, variable := range slices.Backward(environ) {
		if n, value, _ := strings.Cut(variable, "="); n == name {
			return value
		}
	}
	return ""
}
