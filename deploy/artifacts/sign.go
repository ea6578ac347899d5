package artifacts

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// Signer signs in-toto statements.
type Signer interface {
	// Sign returns a Sigstore bundle, version 0.3, that contains the statement.
	Sign(ctx context.Context, statement []byte) (bundle []byte, err error)
}

const inToto = "application/vnd.in-toto+json"

// signedStatement is a statement and its Sigstore bundle.
type signedStatement struct {
	statement
	bundle []byte
}

// key is an ECDSA P-256 key, such as those that cosign generate-key-pair makes.
type key struct {
	private *ecdsa.PrivateKey
	hint    string
}

// NewKeySigner reads a private key in PEM: cosign's encrypted format or plain PKCS #8.
func NewKeySigner(pem, password []byte) (Signer, error) {
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pem, cryptoutils.StaticPasswordFunc(password))
	if err != nil {
		return nil, fmt.Errorf("the signing key cannot be read: %w", err)
	}
	ec, ok := private.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("the signing key is not ECDSA on P-256; make one with cosign generate-key-pair")
	}
	der, err := x509.MarshalPKIXPublicKey(ec.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return key{ec, base64.StdEncoding.EncodeToString(sum[:])}, nil
}

// Sign implements Signer.
func (k key) Sign(ctx context.Context, statement []byte) ([]byte, error) {
	return signBundle(statement, k, sign.BundleOptions{Context: ctx})
}

func signBundle(statement []byte, pair sign.Keypair, options sign.BundleOptions) ([]byte, error) {
	bundle, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: inToto}, pair, options)
	if err != nil {
		return nil, err
	}
	return stableJSON(bundle)
}

// GetHashAlgorithm implements sign.Keypair.
func (key) GetHashAlgorithm() protocommon.HashAlgorithm { return protocommon.HashAlgorithm_SHA2_256 }

// GetSigningAlgorithm implements sign.Keypair.
func (key) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256
}

// GetHint implements sign.Keypair.
func (k key) GetHint() []byte { return []byte(k.hint) }

// GetKeyAlgorithm implements sign.Keypair.
func (key) GetKeyAlgorithm() string { return "ECDSA" }

// GetPublicKey implements sign.Keypair.
func (k key) GetPublicKey() crypto.PublicKey { return k.private.Public() }

// GetPublicKeyPem implements sign.Keypair.
func (k key) GetPublicKeyPem() (string, error) {
	pem, err := cryptoutils.MarshalPublicKeyToPEM(k.private.Public())
	return string(pem), err
}

// SignData implements sign.Keypair.
func (k key) SignData(_ context.Context, data []byte) (signature, digest []byte, err error) {
	sum := sha256.Sum256(data)
	signature, err = k.private.Sign(rand.Reader, sum[:], crypto.SHA256)
	return signature, sum[:], err
}

// keyless signs with a key that it uses once. Sigstore's public instance certifies the key
// for a token's identity, and records it in its log.
type keyless struct{ tokenURL, tokenCredential string }

// NewKeylessSigner signs as the running GitHub workflow. GitHub passes the arguments in
// ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN. Both are required.
func NewKeylessSigner(tokenURL, tokenCredential string) (Signer, error) {
	if tokenURL == "" || tokenCredential == "" {
		return nil, errors.New("no identity to sign with; set -key, or run in a GitHub workflow with id-token: write")
	}
	return keyless{tokenURL, tokenCredential}, nil
}

// Sign implements Signer.
func (k keyless) Sign(ctx context.Context, statement []byte) ([]byte, error) {
	token, err := k.token(ctx)
	if err != nil {
		return nil, fmt.Errorf("identity token: %w", err)
	}
	pair, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, err
	}
	return signBundle(statement, pair, sign.BundleOptions{
		Context:                    ctx,
		CertificateProvider:        sign.NewFulcio(&sign.FulcioOptions{BaseURL: "https://fulcio.sigstore.dev", Retries: 2}),
		CertificateProviderOptions: &sign.CertificateProviderOptions{IDToken: token},
		TransparencyLogs:           []sign.Transparency{sign.NewRekor(&sign.RekorOptions{BaseURL: "https://rekor.sigstore.dev", Retries: 2, Version: 1})},
	})
}

func (k keyless) token(ctx context.Context) (string, error) {
	address, err := url.Parse(k.tokenURL)
	if err != nil {
		return "", err
	}
	query := address.Query()
	query.Set("audience", "sigstore")
	address.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+k.tokenCredential)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var reply struct{ Value string }
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	err = json.NewDecoder(res.Body).Decode(&reply)
	return reply.Value, err
}

// sign signs all statements, or skips them if Signer is nil.
func (r *release) sign(ctx context.Context) error {
	if r.Signer == nil {
		fmt.Fprintln(r.Log, "skipped, because neither -key nor -keyless is set")
		return nil
	}
	predicate, err := r.provenance()
	if err != nil {
		return err
	}
	files, err := r.fileStatement(predicate)
	if err != nil {
		return err
	}
	bundle, err := r.Signer.Sign(ctx, files.text)
	if err != nil {
		return err
	}
	if err := r.write(program+"_"+r.Version+bundleExtension, bundle); err != nil {
		return err
	}
	for i := range r.oci {
		if err := r.oci[i].sign(ctx, r.Signer, predicate); err != nil {
			return err
		}
	}
	return nil
}
