/** Texts with gaps: [[ and ]] stand around what is hidden from the model. */

const GAP = /\[\[([\s\S]*?)\]\]/g;

/** Return the texts around the gaps, and what stood in each gap. */
export function parseGaps(marked) {
  const pieces = [];
  const spans = [];
  let position = 0;
  for (const found of marked.matchAll(GAP)) {
    pieces.push(marked.slice(position, found.index));
    spans.push(found[1]);
    position = found.index + found[0].length;
  }
  pieces.push(marked.slice(position));
  return { pieces, spans };
}

/** Return a text with gaps, marked. */
export function markedText(pieces, spans) {
  return pieces.map((piece, n) => (n < spans.length ? `${piece}[[${spans[n]}]]` : piece)).join("");
}

/** Make the selection of a textarea a gap, or take back the gap that it touches. */
export function toggleGap(area) {
  const { selectionStart: start, selectionEnd: end, value } = area;
  for (const found of value.matchAll(GAP)) {
    const last = found.index + found[0].length;
    if (start < last && end > found.index) {
      replace(area, found.index, last, found[1]);
      area.setSelectionRange(found.index, found.index + found[1].length);
      return;
    }
  }
  const chosen = value.slice(start, end);
  replace(area, start, end, `[[${chosen}]]`);
  area.setSelectionRange(start + 2, start + 2 + chosen.length);
}

function replace(area, start, end, content) {
  area.setRangeText(content, start, end);
  area.dispatchEvent(new Event("input", { bubbles: true }));
  area.focus();
}
