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

// maxText is the maximum length of a client ID or secret, in bytes. Real ones are shorter, and
// both together fit into every system's keyring.
const maxText = 1024

// Credentials are the client ID and client secret of one API 2.0 application.
type Credentials struct{ ClientID, ClientSecret secret.Text }

// document is the form of credentials in both stores. A single document makes ID and secret
// change together.
type document struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

// Check returns an error unless both values can be stored: each has 1 to 1024 bytes, and no
// blanks or invisible characters. The error does not show the values.
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

// Marshal returns the JSON document for the stores. It contains the secret.
func (c Credentials) Marshal() []byte {
	// Two strings cannot fail to marshal.
	text, _ := json.Marshal(document{c.ClientID.Reveal(), c.ClientSecret.Reveal()})
	return text
}

// errDocument replaces encoding/json's errors, which can contain parts of the document.
var errDocument = errors.New(`the stored credentials are damaged: expected {"client_id":…,"client_secret":…}; connect again`)

// ParseCredentials parses a document from [Credentials.Marshal]. It rejects other fields. Its
// errors contain no part of the document.
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
