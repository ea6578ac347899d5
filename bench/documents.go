package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

var errNoPlace = errors.New("no document has a place for the table")

// replaceBlocks replaces each table between its markers in the Markdown files of a folder.
func replaceBlocks(folder string, blocks map[string]string) error {
	documents, err := filepath.Glob(filepath.Join(folder, "*.md"))
	if err != nil {
		return err
	}
	placed := map[string]bool{}
	for _, document := range documents {
		data, err := os.ReadFile(document)
		if err != nil {
			return err
		}
		text := string(data)
		for id, block := range blocks {
			replaced, ok := replaceBlock(text, id, block)
			if ok {
				text, placed[id] = replaced, true
			}
		}
		if text == string(data) {
			continue
		}
		if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for id := range blocks {
		if !placed[id] {
			err = errors.Join(err, fmt.Errorf("%w %s: <!-- bench: %[2]s -->", errNoPlace, id))
		}
	}
	return err
}

// replaceBlock replaces the text between the markers of one table.
func replaceBlock(text, id, block string) (replaced string, ok bool) {
	before, rest, found := strings.Cut(text, fmt.Sprintf("<!-- bench: %s -->\n", id))
	mark := fmt.Sprintf("<!-- end of %s -->\n", id)
	_, after, ended := strings.Cut(rest, mark)
	if !found || !ended {
		return text, false
	}
	return before + fmt.Sprintf("<!-- bench: %s -->\n\n%s\n", id, block) + mark + after, true
}
