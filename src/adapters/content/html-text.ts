import { decodeEntities } from './html-entities.ts';

/** Elements that do not come between the letters of a word. */
const INLINE = new Set(
  'a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q rp rt ruby s samp small span strike strong sub sup time tt u var wbr o:p'.split(
    ' ',
  ),
);
/** Elements that have no end. */
const VOID = new Set(
  'area base br col embed frame hr img input link meta param source track wbr keygen basefont bgsound'.split(
    ' ',
  ),
);
/** Elements whose content is no markup. HTML Standard §13.2.5.1. */
const RAW = new Set(['script', 'style', 'xmp', 'iframe', 'noembed', 'noframes', 'textarea', 'title']);
/** Raw ones that people see. */
const SHOWN_RAW = new Set(['textarea', 'title', 'xmp']);

const TAG_NAME = /^\/?([a-z][^\s/>]*)/i;
/** Values that people see, or follow. */
const SPOKEN =
  /\s(?:alt|title|href|src|value|placeholder|content|label|summary)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))/gi;
/** Styles that hide what stands in the element. */
const HIDING =
  /\shidden(?=[\s=>/]|$)|(?:display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])|mso-hide\s*:\s*all|max-height\s*:\s*0(?![.\d]*[1-9])|opacity\s*:\s*0(?![.\d]*[1-9]))/i;
/** Of one tag: what is longer is not looked at for styles and values. */
const TAG_LIMIT = 65_536;

/**
 * The text of an HTML document, in linear time and whatever its mistakes: what is shown, then what is not (hidden elements, comments, attributes, scripts), so
 * that what is hidden neither tears a word apart nor goes unseen.
 */
export function htmlText(html: string): string {
  const shown: string[] = [];
  const unseen: string[] = [];
  /** The element that hides, and how many of its name are open in it. */
  let hiding: { readonly name: string; depth: number } | null = null;
  let at = 0;
  while (at < html.length) {
    const open = html.indexOf('<', at);
    const text = html.slice(at, open === -1 ? html.length : open);
    (hiding === null ? shown : unseen).push(text);
    if (open === -1) break;
    const [, name = ''] = TAG_NAME.exec(html.slice(open + 1, open + 64)) ?? [];
    if (name === '') {
      const next = html[open + 1];
      if (next === '!' || next === '?' || next === '/') at = skipped(html, open, unseen);
      else {
        (hiding === null ? shown : unseen).push('<');
        at = open + 1;
      }
      continue;
    }
    const element = name.toLowerCase();
    const closing = html[open + 1] === '/';
    const end = tagEnd(html, open);
    at = end;
    if (!INLINE.has(element)) (hiding === null ? shown : unseen).push(' ');
    if (closing) {
      if (hiding?.name === element && --hiding.depth === 0) hiding = null;
      continue;
    }
    const isVoid = VOID.has(element);
    if (hiding !== null) {
      if (hiding.name === element && !isVoid) hiding.depth++;
    }
    if (end - open > TAG_LIMIT || html[end - 1] !== '>') unseen.push(' ', html.slice(open, end));
    else if (end - open > name.length + 2) {
      const tag = html.slice(open, end);
      for (const [, double, single, bare] of tag.matchAll(SPOKEN))
        unseen.push(' ', double ?? single ?? bare ?? '');
      if (hiding === null && !isVoid && HIDING.test(tag)) hiding = { name: element, depth: 1 };
    }
    if (!RAW.has(element)) continue;
    const close = rawEnd(html, at, element);
    (hiding === null && SHOWN_RAW.has(element) ? shown : unseen).push(' ', html.slice(at, close), ' ');
    at = close;
    // Its end is no end of an element that was counted.
    if (hiding?.name === element && --hiding.depth === 0) hiding = null;
    const after = html.indexOf('>', close);
    at = after === -1 ? html.length : after + 1;
  }
  const hidden = unseen.join('');
  return decodeEntities(`${shown.join('')}\n${hidden.trim() === '' ? '' : hidden}`);
}

/** Behind a comment, a declaration or a closing tag without a name. */
function skipped(html: string, open: number, unseen: string[]): number {
  if (html.startsWith('<!--', open)) {
    // `<!-->` is a whole comment. HTML Standard §13.2.5.43.
    const end = html.startsWith('>', open + 4) ? open + 4 : html.indexOf('-->', open + 4);
    const close = end === -1 ? html.length : end;
    unseen.push(' ', html.slice(open + 4, close), ' ');
    if (end === -1) return html.length;
    return html.startsWith('-->', end) ? end + 3 : end + 1;
  }
  const end = html.indexOf('>', open);
  const close = end === -1 ? html.length : end;
  unseen.push(' ', html.slice(open + 2, close), ' ');
  return end === -1 ? html.length : end + 1;
}

/** Behind the `>` that ends a tag, which is not one within quotes. */
function tagEnd(html: string, open: number): number {
  let quote = 0;
  let afterEquals = false;
  for (let at = open + 1; at < html.length; at++) {
    const code = html.charCodeAt(at);
    if (quote !== 0) {
      if (code === quote) quote = 0;
    } else if (code === 0x3e) return at + 1;
    else if ((code === 0x22 || code === 0x27) && afterEquals) {
      quote = code;
      afterEquals = false;
    } else if (code === 0x3d) afterEquals = true;
    else if (code > 0x20) afterEquals = false;
  }
  return html.length;
}

/** Where the closing tag of a raw element begins. */
function rawEnd(html: string, from: number, element: string): number {
  const closing = new RegExp(`</${element}(?=[\\s/>]|$)`, 'gi');
  closing.lastIndex = from;
  return closing.exec(html)?.index ?? html.length;
}
