package connection

import (
	"encoding/json"
	"fmt"
	"io"
)

// WriteKubernetesSecret writes the manifest of a Secret with the keys client-id and
// client-secret, which the manifests and the Helm chart expect in the Secret "mimecast".
// Without a namespace, kubectl's current one applies.
func WriteKubernetesSecret(w io.Writer, name, namespace string, creds Credentials) error {
	if err := creds.Check(); err != nil {
		return err
	}
	text := "apiVersion: v1\nkind: Secret\nmetadata:\n  name: " + quoteYAML(name) + "\n"
	if namespace != "" {
		text += "  namespace: " + quoteYAML(namespace) + "\n"
	}
	text += "type: Opaque\nstringData:\n" +
		"  client-id: " + quoteYAML(creds.ClientID.Reveal()) + "\n" +
		"  client-secret: " + quoteYAML(creds.ClientSecret.Reveal()) + "\n"
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}

// quoteYAML quotes as JSON does, which YAML reads whatever the text has in it.
func quoteYAML(text string) string {
	quoted, _ := json.Marshal(text) // a string cannot fail to marshal
	return string(quoted)
}
