package batch

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func TestLinksOfAList(t *testing.T) {
	instant := time.Date(2024, 6, 5, 11, 50, 6, 389e6, time.UTC)
	for _, c := range []struct {
		name, text string
		want       []link // from and to include the string's quotes
	}{
		{"as recorded", `{"value":[{"url":"https://s3-x/log1.json.gz?X-Amz-a=b","expiry":"2024-06-05T11:50:06.389Z","size":489}],"isCaughtUp":false,"@nextPage":"NDU1NA=="}`,
			[]link{{10 + 7, 10 + 7 + 38, "https://s3-x/log1.json.gz?X-Amz-a=b", instant}}},
		{"no item", `{"value":[],"isCaughtUp":true}`, nil},
		{"no value", `{"fail":[{"url":"x"}]}`, nil},
		{"an array", `[{"value":[{"url":"x"}]}]`, nil},
		{"not JSON", `{"value":[{"url":"x"}]`, nil},
		{"more behind it", `{"value":[{"url":"x"}]} {}`, nil},
		{"empty", "", nil},
		{"value is an object", `{"value":{"url":"x"}}`, nil},
		{"deeper", `{"value":[[{"url":"x"}],{"a":{"url":"x"}}],"a":{"value":[{"url":"x"}]}}`, nil},
		{"other types", `{"value":[{"url":null},{"url":1},{"url":""},{"url":["x"]},null,"url",1.5e3,true]}`, nil},
	} {
		got := findLinks([]byte(c.text))
		if len(got) != len(c.want) {
			t.Errorf("%s: %v", c.name, got)
			continue
		}
		for i, l := range got {
			if l.url != c.want[i].url || !l.expiry.Equal(c.want[i].expiry) || c.text[l.from] != '"' || c.text[l.to-1] != '"' {
				t.Errorf("%s: %+v", c.name, l)
			}
		}
	}
}

func TestEachSpellingOfALinkIsFound(t *testing.T) {
	const want = `https://h.example/a?b=c"\/é😀`
	spelled := `"https:\/\/h.example/a?\u0062=c\"\\/\u00e9\ud83d\ude00"`
	for _, text := range []string{
		"{\"value\":[{\"url\":" + spelled + "}]}",
		" \t\r\n{ \"a\" : [1,{\"]\":\"}\"}] , \"value\" : [ { \"expiry\" : 5 , \"url\" : " + spelled + " } ] } \n",
		"{\"val\\u0075e\":[{\"\\u0075rl\":" + spelled + ",\"expiry\":\"never\"}]}",
	} {
		links := findLinks([]byte(text))
		if len(links) != 1 || links[0].url != want || text[links[0].from:links[0].to] != spelled || !links[0].expiry.IsZero() {
			t.Errorf("%s: %+v", text, links)
		}
	}
	if links := findLinks([]byte(`{"value":[{"url":"a","url":"b"},{"url":"c"}],"value":[{"url":"d"}]}`)); len(links) != 4 {
		t.Errorf("of those that are there twice: %+v", links)
	}
}

// linksByDecoder finds the links with the decoder's tokens, as an independent check.
func linksByDecoder(text []byte) (all []string) {
	d := json.NewDecoder(bytes.NewReader(text))
	type level struct {
		object bool
		key    string
		isKey  bool // the next token is a key
	}
	var path []level
	for {
		token, err := d.Token()
		if err != nil {
			return all
		}
		top := len(path) - 1
		if top >= 0 && path[top].object && path[top].isKey {
			if key, ok := token.(string); ok {
				path[top].key, path[top].isKey = key, false
				continue
			}
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			path = append(path, level{object: token == json.Delim('{'), isKey: true})
			continue
		case json.Delim('}'), json.Delim(']'):
			path = path[:top]
			top--
		default:
			address, ok := token.(string)
			if ok && address != "" && top == 2 && path[0].object && path[0].key == "value" && !path[1].object && path[2].object && path[2].key == "url" {
				all = append(all, address)
			}
		}
		if top >= 0 {
			path[top].isKey = true
		}
	}
}

func FuzzLinksAreThoseOfADecoder(f *testing.F) {
	for _, seed := range []string{
		`{"value":[{"url":"https://s3/log?a=b&c","expiry":"2024-06-05T11:50:06.389Z","size":489}],"isCaughtUp":false,"@nextPage":"NDU1NA=="}`,
		` {"a":[1,-2.5e7,true,null,"\"]}"],"value" : [ {"b":{"url":"x"}, "url":"\u0068\/\\"},[],{},"",{"url":"y","url":""} ] , "value":[{"url":"z"}]} `,
		`[{"value":[]}]`, `{"value":[{"url":"x"}`, "", "{}", `{"\u0076alue":[{"ur\u006c":"\ud800"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		links := findLinks(text)
		if !json.Valid(text) {
			if links != nil {
				t.Fatal("links in what is not JSON")
			}
			return
		}
		want := linksByDecoder(text)
		if len(links) != len(want) {
			t.Fatalf("%d links, not %d", len(links), len(want))
		}
		var rewritten, restored []byte
		done := 0
		for i, l := range links {
			var address string
			if err := json.Unmarshal(text[l.from:l.to], &address); err != nil || address != want[i] || l.url != want[i] || l.from < done {
				t.Fatalf("%+v, %v; want %q", l, err, want[i])
			}
			rewritten = append(append(rewritten, text[done:l.from]...), `"new"`...)
			restored = append(append(restored, text[done:l.from]...), text[l.from:l.to]...)
			done = l.to
		}
		rewritten, restored = append(rewritten, text[done:]...), append(restored, text[done:]...)
		if !bytes.Equal(restored, text) {
			t.Fatal("the rest has changed")
		}
		again := findLinks(rewritten)
		if len(again) != len(links) {
			t.Fatalf("%s has %d links", rewritten, len(again))
		}
		for _, l := range again {
			if l.url != "new" {
				t.Fatalf("%s has %+v", rewritten, l)
			}
		}
	})
}
