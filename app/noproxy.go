package app

import (
	"slices"
	"strings"
)

// ownHosts are the host names of the proxy that Run starts. No corporate proxy can reach
// it.
var ownHosts = []string{"127.0.0.1", "localhost"}

// withoutCorporateProxy returns environ with NO_PROXY and no_proxy extended, so that a program
// reaches this machine directly and everything else as before.
//
// Go reads NO_PROXY first; curl and Python read no_proxy first. So both variables are set. If
// only one was set, the other gets the same list, since every program reads the one that is
// set. If they differ, each keeps its list, so that every program reads the same one as
// before. An empty variable counts as not set, as for Go and curl. Only Python takes an empty
// no_proxy for an empty list, even if NO_PROXY is set.
//
// A list with an entry * is not changed. curl and Python recognize * only as the whole list.
// In a longer list they ignore it, and need an entry for this machine to reach it directly.
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

// withOwnHosts adds the missing ownHosts to a list, unless it has an entry *.
func withOwnHosts(list string) string {
	entries := strings.Split(list, ",")
	for i, e := range entries {
		entries[i] = strings.TrimSpace(e)
	}
	if slices.Contains(entries, "*") {
		return list
	}
	if slices.ContainsFunc(entries, func(e string) bool { return strings.ContainsAny(e, " \t") }) {
		// curl stops at the first blank inside an entry, so put ownHosts first.
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

// lookup returns the value of a variable, or an empty string. The last of several counts.
func lookup(environ []string, name string) string {
	for _, variable := range slices.Backward(environ) {
		if n, value, _ := strings.Cut(variable, "="); n == name {
			return value
		}
	}
	return ""
}
