package faults_test

import (
	"testing"
)

var machineRows = []row{
	{"the clock is set back", "200", "a renewal", "at once: the token is renewed, and a pause ends", nil, "token.TestClockSetBackMakesTheTokenDue"},
	{"the clock is set forward", "200, once a token is fetched", "a renewal", "at once", nil, "token.TestClockSetForwardOutdatesTheToken"},
}

var _ testing.TB
