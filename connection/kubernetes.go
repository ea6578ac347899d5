package connection

import (
	"encoding/json"
	"fmt"
	"io"
)

// WriteKubernetesSecret writes the manifest of a Secret with the keys client-id and
// client-secret. The proxy's manifests and Helm chart expect them in the Secret "mimecast". If
// namespace is empty, kubectl uses its current one.
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

// quoteYAML quotes any text as a JSON string, which is also valid YAML.
func quoteYAML(text string) string {
	quoted, _ := json.Marshal(text) // a string cannot fail to marshal
	return string(quoted)
}
