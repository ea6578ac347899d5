// Package attack contains only tests. They attack the built program from outside over
// real sockets. The attackers are hostile web pages, other users of the machine and other
// pods. docs/security.md names the claims that these tests check.
package attack
