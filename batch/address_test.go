package batch

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestOnlyPublicAddressesArePublic(t *testing.T) {
	const public = `
		1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 52.216.1.1 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
		169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
		198.51.99.255 203.0.114.0 223.255.255.255
		::ffff:8.8.8.8 64:ff9b::8.8.8.8 2600:: 2606:4700:4700::1111 2a00:1450:4001::1 2001:4860:4860::8888 2001:200:: 2003::1 3ffe::1`
	const other = `
		0.0.0.0 0.1.2.3 10.0.0.0 10.255.255.255 100.64.0.0 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.255
		168.63.129.16 169.254.0.0 169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.192 192.0.2.1 192.88.99.1
		192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.255 224.0.0.1 239.255.255.255 240.0.0.1
		255.255.255.255
		:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:0.0.0.0 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:0:8.8.8.8
		64:ff9b::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b::169.254.169.254 64:ff9b::100.64.0.1 64:ff9b:1::8.8.8.8 100::1 5f00::1
		2001::1 2001:2::1 2001:20::1 2001:db8::1 2002:0808:0808::1 2002:7f00:1::1 3fff::1 4000::1
		fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0 2600::1%eth0 fec0::1 ff02::1 ff0e::1`
	for want, list := range map[bool]string{true: public, false: other} {
		for text := range strings.FieldsSeq(list) {
			if got := isPublic(netip.MustParseAddr(text)); got != want {
				t.Errorf("%s: %v", text, got)
			}
		}
	}
	if isPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestOnlyNamesOfTheInternetAreAccepted(t *testing.T) {
	const names = "s3.amazonaws.com S3.AMAZONAWS.COM a.b.example. mimecast-siem.s3.eu-west-1.amazonaws.com xn--bcher-kva.example a_b.example 1.2.3.4.example localhost.example home.arpa.example"
	for host := range strings.FieldsSeq(names) {
		if !isPublicName(host) {
			t.Errorf("%s is rejected", host)
		}
	}
	const others = `. .. a a. .a a..example localhost localhost. LOCALHOST x.localhost x.LOCALHOST. printer.local metadata.google.internal x.home.arpa
		home.arpa nas.lan a.corp a.home a.intranet a.localdomain a.private svc.cluster.local
		127.0.0.1 127.0.0.1. 127.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001 1.2.3 a.0x7f a.1 ::1 [::1] ::ffff:127.0.0.1 127.0.0.1%25
		１２７.0.0.1 ①.example a．example a。example exämple.example a%2eexample a@b.example a:443.example a/b.example`
	for host := range strings.FieldsSeq(others) {
		if isPublicName(host) {
			t.Errorf("%s is accepted", host)
		}
	}
	if isPublicName("") || isPublicName("a b.example") || isPublicName("a\x00.example") {
		t.Error("no name is one")
	}
}

func TestAcceptedURLs(t *testing.T) {
	for _, c := range []struct {
		url               string
		strict, simulated bool
	}{
		{"https://files.example/a?b", true, true},
		{"https://files.example:443/", true, true},
		{"https://files.example:/", true, true},
		{"HTTPS://FILES.EXAMPLE/", true, true},
		{"http://files.example/", false, false},
		{"https://files.example:8443/", false, false},
		{"https://files.example:0443/", false, false},
		{"https://user@files.example/", false, false},
		{"https://user:password@files.example/", false, false},
		{"https://files.example@127.0.0.1/", false, false},
		{"https://@files.example/", false, false},
		{"https:files.example", false, false},
		{"//files.example/", false, false},
		{"/etc/passwd", false, false},
		{"", false, false},
		{"file:///etc/passwd", false, false},
		{"ftp://files.example/", false, false},
		{"gopher://files.example/", false, false},
		{"https:///", false, false},
		{"https://8.8.8.8/", false, false},
		{"https://[2606:4700:4700::1111]/", false, false},
		{"https://127.0.0.1/", false, true},
		{"http://127.0.0.1:1/", false, true},
		{"http://[::1]:1/", false, true},
		{"http://localhost:1/", false, true},
		{"ftp://127.0.0.1:1/", false, false},
		{"http://a@127.0.0.1:1/", false, false},
		{"http://10.0.0.1/", false, false},
		{"http://169.254.169.254/latest/meta-data/", false, false},
		{"https://2130706433/", false, false},
		{"https://0x7f000001/", false, false},
		{"https://0177.0.0.1/", false, false},
		{"https://127.1/", false, false},
		{"https://[::ffff:10.0.0.1]/", false, false},
		{"https://[fe80::1%25eth0]/", false, false},
		{"https://localhost.localdomain/", false, false},
	} {
		u, err := url.Parse(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		if got := accepts(u, false); got != c.strict {
			t.Errorf("%s: %v", c.url, got)
		}
		if got := accepts(u, true); got != c.simulated {
			t.Errorf("%s beside a simulator: %v", c.url, got)
		}
	}
}
