package mimecast

import (
	"cmp"
	"encoding/json"
)

// IdentityPath is the function that returns the account a token was issued for. It
// only reads, and any application may call it.
const IdentityPath = "/identity/whoami"

// Identity is the account that credentials belong to. Its texts are the peer's: check
// them before they are printed.
type Identity struct {
	// Name is the account's name, or else its code; it may be empty.
	Name string
	// Region is the account's, such as eu; it may be empty.
	Region string
}

// ParseIdentity reads a response of [IdentityPath]. What is missing stays empty.
func ParseIdentity(body []byte) Identity {
	var answer struct {
		Home struct {
			Code   string `json:"code"`
			Name   string `json:"name"`
			Region string `json:"region"`
		} `json:"home-account"`
		Codes map[string]any `json:"account-codes"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return Identity{}
	}
	code, _ := answer.Codes["cg"].(string)
	return Identity{Name: cmp.Or(answer.Home.Name, answer.Home.Code, code), Region: answer.Home.Region}
}
