package browser

import (
	"cmp"
	"strconv"
	"strings"
)

// illegible finds texts with less contrast than WCAG 2 requires at level AA: 4.5, or 3 for
// large text. It also finds controls whose border has less than 3.
const illegible = `(() => {
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const ratio = (one, other) => {
    const a = luminance(one), b = luminance(other);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const found = [];
  const judge = (text, e, style) => {
    const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
    const got = ratio(parse(style.color).slice(0, 3), behind(e));
    if (got < (large ? 3 : 4.5)) found.push(text.trim().slice(0, 40) + ': ' + got.toFixed(2));
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest('option, script')) continue;
    texts++;
    judge(walker.currentNode.data, e, getComputedStyle(e));
  }
  for (const e of document.querySelectorAll('[placeholder]')) judge(e.placeholder, e, getComputedStyle(e, '::placeholder'));
  for (const e of document.querySelectorAll(BORDERED)) {
    const got = ratio(parse(getComputedStyle(e).borderTopColor).slice(0, 3), behind(e.parentElement));
    if (got < 3) found.push('the border of ' + e.id + ': ' + got.toFixed(2));
  }
  return texts < LEAST ? ['only ' + texts + ' texts'] : found;
})()`

// Contrast configures [Tab.Illegible].
type Contrast struct {
	// Texts is the minimum number of texts on the page.
	Texts int
	// Bordered selects the controls whose border is checked; empty means none.
	Bordered string
	// First is a script to run immediately before the check; it may be empty.
	First string
}

// Illegible returns the texts and controls with too little contrast.
func (v *Tab) Illegible(c Contrast) []string {
	v.Helper()
	fill := strings.NewReplacer("LEAST", strconv.Itoa(c.Texts), "BORDERED", strconv.Quote(cmp.Or(c.Bordered, "no-element")))
	return Eval[[]string](v, c.First+"; "+fill.Replace(illegible))
}
