package mimecast

import "strings"

// TokenPath is the path of the token endpoint below a base URL.
const TokenPath = "/oauth/token"

// BaseURLs are the base URLs of API 2.0, by region.
var BaseURLs = map[string]string{
	"global": "https://api.services.mimecast.com",
	"us":     "https://us-api.services.mimecast.com",
	"uk":     "https://uk-api.services.mimecast.com",
}

// api2Regions are the regions of API 2.0 for hosts of API 1.0. The others are global: the
// credentials select the account.
var api2Regions = map[string]string{
	"us-api.mimecast.com":  "us",
	"usb-api.mimecast.com": "us",
	"uk-api.mimecast.com":  "uk",
}

// RegionOfAPI1 returns the region of API 2.0 that replaces a host of API 1.0. The host is
// in lower case; ok is false if it is not a host of API 1.0.
func RegionOfAPI1(host string) (region string, ok bool) {
	if host != "api.mimecast.com" && !strings.HasSuffix(host, "-api.mimecast.com") {
		return "", false
	}
	if region, ok := api2Regions[host]; ok {
		return region, true
	}
	return "global", true
}
