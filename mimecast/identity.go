package mimecast

import (
	"cmp"
	"encoding/json"
)

// IdentityPath is the path of the function that returns the account of a token. It only
// reads, and every application may call it.
const IdentityPath = "/identity/whoami"

// Identity is the account that credentials belong to. Its texts come from the peer:
// check them before you print them.
type Identity struct {
	// Name is the account's name, or its code if there is no name. It may be empty.
	Name string
	// Region is the account's region, such as eu. It may be empty.
	Region string
}

// ParseIdentity parses a response of [IdentityPath]. Missing fields stay empty.
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
