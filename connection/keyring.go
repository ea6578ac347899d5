package connection

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What can be wrong with a keyring.
var (
	// ErrNoKeyring says that this machine or session has none.
	ErrNoKeyring = errors.New("no keyring on this machine")
	// ErrKeyringLocked says that the user has to unlock it.
	ErrKeyringLocked = errors.New("the keyring is locked: unlock it, or log in to the desktop")
	// ErrKeyringTimeout says that it did not respond in time. It may be asking the user.
	ErrKeyringTimeout = fmt.Errorf("the keyring did not respond within %v", keyringTimeout)
)

const (
	// keyringService names the proxy's entries. The profile is the user name of each.
	keyringService = "mimecast-proxy"
	// keyringTimeout bounds each call.
	keyringTimeout = 5 * time.Second
)

// KeyringBackend is a keyring with credentials in it, by profile. A Book never has more
// than one call of it under way in a process.
type KeyringBackend interface {
	// State returns nil if the keyring can be used.
	State(ctx context.Context) error
	// Set stores a document in place of an older one.
	Set(ctx context.Context, profile string, document []byte) error
	// Get returns a document, or ErrNotFound.
	Get(ctx context.Context, profile string) ([]byte, error)
	// Delete removes a document if there is one.
	Delete(ctx context.Context, profile string) error
}

// KeyringState returns nil if the keyring can be used. Otherwise the error is
// ErrNoKeyring, ErrKeyringLocked, ErrKeyringTimeout or another one. It opens no prompt.
func (b Book) KeyringState(ctx context.Context) error { return b.keyring().State(ctx) }

func (b Book) keyring() bounded {
	if b.Keyring != nil {
		return bounded{b.Keyring}
	}
	return bounded{systemKeyring(b.Environ)}
}

// bounded ends each call of a keyring after keyringTimeout.
type bounded struct{ backend KeyringBackend }

// State implements KeyringBackend.
func (b bounded) State(ctx context.Context) error {
	_, err := call(ctx, func(ctx context.Context) ([]byte, error) { return nil, b.backend.State(ctx) })
	return err
}

// Set implements KeyringBackend.
func (b bounded) Set(ctx context.Context, profile string, document []byte) error {
	_, err := call(ctx, func(ctx context.Context) ([]byte, error) { return nil, b.backend.Set(ctx, profile, document) })
	return err
}

// Get implements KeyringBackend.
func (b bounded) Get(ctx context.Context, profile string) ([]byte, error) {
	return call(ctx, func(ctx context.Context) ([]byte, error) { return b.backend.Get(ctx, profile) })
}

// Delete implements KeyringBackend.
func (b bounded) Delete(ctx context.Context, profile string) error {
	_, err := call(ctx, func(ctx context.Context) ([]byte, error) { return nil, b.backend.Delete(ctx, profile) })
	return err
}

// keyringSlot is held by the one call under way. Where a system's call hangs and cannot
// be stopped, those after it wait in vain for the slot and leave no goroutine each.
var keyringSlot = make(chan struct{}, 1)

type result struct {
	document []byte
	err      error
}

func call(ctx context.Context, f func(context.Context) ([]byte, error)) ([]byte, error) {
	bound, cancel := context.WithTimeoutCause(ctx, keyringTimeout, ErrKeyringTimeout)
	defer cancel()
	select {
	case keyringSlot <- struct{}{}:
	case <-bound.Done():
		return nil, context.Cause(bound)
	}
	done := make(chan result, 1)
	go func() {
		defer func() { <-keyringSlot }()
		document, err := f(bound)
		done <- result{document, err}
	}()
	select {
	case r := <-done:
		if r.err != nil && bound.Err() != nil {
			return nil, context.Cause(bound)
		}
		return r.document, r.err
	case <-bound.Done():
		return nil, context.Cause(bound)
	}
}
