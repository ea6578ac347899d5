package mimecast

import (
	"net/url"
	"slices"
	"strings"
)

// TokenPath is the path of the token endpoint below a base URL.
const TokenPath = "/oauth/token"

// BaseURLs are the base URLs of API 2.0, by region.
var BaseURLs = map[string]string{
	"global": "https://api.services.mimecast.com",
	"us":     "https://us-api.services.mimecast.com",
	"uk":     "https://uk-api.services.mimecast.com",
}

// api2Regions maps hosts of API 1.0 to regions of API 2.0. Other hosts map to global,
// where the credentials select the account.
var api2Regions = map[string]string{
	"us-api.mimecast.com":  "us",
	"usb-api.mimecast.com": "us",
	"uk-api.mimecast.com":  "uk",
}

// RegionOfAPI1 returns the region of API 2.0 that replaces a host of API 1.0. The host
// must be in lower case. ok is false if it is not a host of API 1.0.
func RegionOfAPI1(host string) (region string, ok bool) {
	if host != "api.mimecast.com" && !strings.HasSuffix(host, "-api.mimecast.com") {
		return "", false
	}
	if region, ok := api2Regions[host]; ok {
		return region, true
	}
	return "global", true
}

// api1Hosts are the hosts of API 1.0 that clients are known to hard-code.
var api1Hosts = []string{
	"api.mimecast.com", "au-api.mimecast.com", "ca-api.mimecast.com", "de-api.mimecast.com", "eu-api.mimecast.com",
	"je-api.mimecast.com", "jer-api.mimecast.com", "offshore-api.mimecast.com", "sandbox-api.mimecast.com",
	"uk-api.mimecast.com", "us-api.mimecast.com", "usb-api.mimecast.com", "za-api.mimecast.com",
}

// apiHosts are the hosts of API 1.0 and 2.0, sorted.
var apiHosts = func() []string {
	hosts := slices.Clone(api1Hosts)
	for _, base := range BaseURLs {
		u, err := url.Parse(base)
		if err != nil { // only if the table is wrong
			panic(err)
		}
		hosts = append(hosts, u.Hostname())
	}
	slices.Sort(hosts)
	return hosts
}()

// APIHosts returns the host names of API 1.0 and 2.0, in lower case.
func APIHosts() []string { return slices.Clone(apiHosts) }

// IsAPIHost reports whether host is one of [APIHosts]. It must be in lower case and
// without a trailing dot.
func IsAPIHost(host string) bool {
	_, ok := slices.BinarySearch(apiHosts, host)
	return ok
}
