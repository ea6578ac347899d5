package connection

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"mimecast-proxy/secret"
)

// maxText is more than any client ID or secret has, in bytes. Both together fit into each
// system's keyring.
const maxText = 1024

// Credentials are of one API 2.0 application.
type Credentials struct{ ClientID, ClientSecret secret.Text }

// document is how both stores hold credentials: as one, so that ID and secret change
// together.
type document struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

// Check returns an error unless both values are there and can be stored. The error shows
// neither.
func (c Credentials) Check() error {
	if err := checkText("client ID", c.ClientID.Reveal()); err != nil {
		return err
	}
	return checkText("client secret", c.ClientSecret.Reveal())
}

func checkText(name, text string) error {
	if text == "" {
		return fmt.Errorf("the %s is empty", name)
	}
	if len(text) > maxText {
		return fmt.Errorf("the %s has %d bytes; at most %d are accepted", name, len(text), maxText)
	}
	for i, r := range text {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == utf8.RuneError {
			return fmt.Errorf("the %s has a blank or an invisible character at byte %d; copy it again", name, i+1)
		}
	}
	return nil
}

// Marshal returns the JSON document that the stores hold. It is secret.
func (c Credentials) Marshal() []byte {
	// Two strings cannot fail to marshal.
	text, _ := json.Marshal(document{c.ClientID.Reveal(), c.ClientSecret.Reveal()})
	return text
}

// errDocument shows nothing of what was read, as encoding/json's errors would.
var errDocument = errors.New(`the stored credentials are damaged: expected {"client_id":…,"client_secret":…}; connect again`)

// ParseCredentials reads a document that Marshal wrote. It accepts no other fields. Its
// errors show nothing of the content.
func ParseCredentials(text []byte) (Credentials, error) {
	var d document
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&d) != nil {
		return Credentials{}, errDocument
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Credentials{}, errDocument
	}
	c := Credentials{secret.New(d.ClientID), secret.New(d.ClientSecret)}
	if c.Check() != nil {
		return Credentials{}, errDocument
	}
	return c, nil
}
