package connection

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The errors of a keyring that cannot be used.
var (
	// ErrNoKeyring means that this machine or session has no keyring.
	ErrNoKeyring = errors.New("no keyring on this machine")
	// ErrKeyringLocked means that the user must unlock the keyring.
	ErrKeyringLocked = errors.New("the keyring is locked: unlock it, or log in to the desktop")
	// ErrKeyringTimeout means that the keyring did not respond within 5 s. It may be waiting
	// for the user.
	ErrKeyringTimeout = fmt.Errorf("the keyring did not respond within %v", keyringTimeout)
)

const (
	// keyringService is the service name of the proxy's entries. The profile is the user
	// name.
	keyringService = "mimecast-proxy"
	// keyringTimeout bounds each call of a keyring.
	keyringTimeout = 5 * time.Second
)

// KeyringBackend is a keyring that holds credentials by profile. A process makes one call of it
// at a time.
type KeyringBackend interface {
	// State returns nil if the keyring can be used. It must not open a prompt.
	State(ctx context.Context) error
	// Set stores a document, and replaces an older one.
	Set(ctx context.Context, profile string, document []byte) error
	// Get returns a document, or ErrNotFound if there is none.
	Get(ctx context.Context, profile string) ([]byte, error)
	// Delete removes a document. It returns nil if there is none.
	Delete(ctx context.Context, profile string) error
}

// KeyringState returns nil if the keyring can be used. Otherwise the error wraps ErrNoKeyring,
// ErrKeyringLocked, ErrKeyringTimeout or another cause. KeyringState opens no prompt.
func (b Book) KeyringState(ctx context.Context) error { return b.keyring().State(ctx) }

func (b Book) keyring() bounded {
	if b.Keyring != nil {
		return bounded{b.Keyring}
	}
	return bounded{systemKeyring(b.Environ)}
}

// bounded is a keyring whose calls end after keyringTimeout.
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

// keyringSlot is a semaphore for one keyring call at a time. If a system call hangs, later
// calls time out while they wait for the slot, and do not each leave a goroutine behind.
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
