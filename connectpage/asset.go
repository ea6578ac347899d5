package connectpage

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"path"
	"strings"
)

//go:embed web
var web embed.FS

// An asset's path changes with its content. The browser may keep it, so the last page
// has its style although the listener is gone.
var (
	style = loadAsset("page.css", "text/css; charset=utf-8")
	icon  = loadAsset("icon.svg", "image/svg+xml")
)

type asset struct {
	path        string
	contentType string
	body        []byte
}

func loadAsset(name, contentType string) asset {
	body, err := web.ReadFile("web/" + name)
	if err != nil { // it is embedded
		panic(err)
	}
	sum := sha256.Sum256(body)
	ext := path.Ext(name)
	return asset{"/static/" + strings.TrimSuffix(name, ext) + "." + hex.EncodeToString(sum[:6]) + ext, contentType, body}
}
