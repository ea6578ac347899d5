package guard

import "mimecast-proxy/secret"

// StubToken returns the token that the token stub gives to clients that know a
// key. It is as secret as the key.
func StubToken(key secret.Text) secret.Text { return newKey(key).token }
