// Package attack contains only tests. They attack the built program from outside over real
// sockets, as a hostile web page, another user of the machine or another pod would.
// docs/security.md names the claims that these tests check.
package attack
