package mimecast

import "strings"

// OtherFunction is the label of all functions without a separate label.
const OtherFunction = "other"

// functions has the paths of the functions with a separate label.
var functions = knownFunctions()

// FunctionOf returns the label of the function at a path: the path if the function is
// known, else [OtherFunction]. So clients cannot create new labels.
func FunctionOf(path string) string {
	if functions[path] {
		return path
	}
	return OtherFunction
}

// Functions returns the number of labels, including [OtherFunction].
func Functions() int { return len(functions) + 1 }

// moreFunctions are known functions that are in neither [Presets] nor [Products].
var moreFunctions = []string{
	"/identity/whoami",
	"/siem/v1/batch/events/ci",
	"/siem/v1/events/ci",
	"/directory/cloud-gateway/v1/groups",
	"/domain/cloud-gateway/v1/internal-domains",
	"/user/cloud-gateway/v1/users",
	"/threat-reporting/v1/reported-emails",
	"/api/directory/add-group-member",
	"/api/email/send-email",
	"/api/file/file-upload",
	"/api/gateway/hold-reject",
	"/api/gateway/hold-release",
	"/api/managedsender/permit-or-block-sender",
	"/api/ttp/remediation/create",
	"/api/ttp/url/create-managed-url",
	"/api/ttp/url/delete-managed-url",
	"/api/user/create-user",
	"/api/user/import-users",
	"/api/user/update-user",
}

func knownFunctions() map[string]bool {
	known := map[string]bool{}
	add := func(target string) {
		path, _, _ := strings.Cut(target, "?")
		if !strings.HasSuffix(path, "/") { // a subtree has many functions
			known[path] = true
		}
	}
	for _, routes := range Presets {
		for _, route := range routes {
			_, path, _ := strings.Cut(route, " ")
			add(path)
		}
	}
	for _, f := range Products {
		add(f.Path)
	}
	for _, path := range moreFunctions {
		add(path)
	}
	for _, call := range API1Calls { // these calls use no quota of Mimecast
		delete(known, call.Path)
	}
	return known
}
