// Texts of models are hostile until shown: they become text nodes, and what hides is made visible.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;
const MOST_PRODUCTS = 4_000_000;

/** Append text; control characters and marks that turn the reading direction are spelled out. */
function appendText(element, text) {
  let rest = text;
  for (let at = rest.search(HIDDEN); at >= 0; at = rest.search(HIDDEN)) {
    if (at > 0) element.append(rest.slice(0, at));
    const code = rest.charCodeAt(at).toString(16).toUpperCase().padStart(4, "0");
    element.append(make("span", "control", `U+${code}`));
    rest = rest.slice(at + 1);
  }
  if (rest) element.append(rest);
}

/** Append text with every occurrence of `query` marked. */
function appendMarked(element, text, query) {
  const lower = query ? text.toLowerCase() : "";
  // A few letters change their length in lower case; then places would not fit.
  if (!query || lower.length !== text.length) return appendText(element, text);
  let from = 0;
  for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
    appendText(element, text.slice(from, at));
    const mark = make("mark", "hit");
    appendText(mark, text.slice(at, at + query.length));
    element.append(mark);
    from = at + query.length;
  }
  appendText(element, text.slice(from));
}

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^]/gu) ?? [];

/** Return [same, words] stretches of `a` and of `b`: their longest common subsequence is the same. */
function difference(a, b) {
  const [left, right] = [words(a), words(b)];
  let head = 0;
  while (head < left.length && head < right.length && left[head] === right[head]) head++;
  let tail = 0;
  const most = Math.min(left.length, right.length) - head;
  while (tail < most && left.at(-1 - tail) === right.at(-1 - tail)) tail++;
  const middleLeft = left.slice(head, left.length - tail);
  const middleRight = right.slice(head, right.length - tail);
  const [sameLeft, sameRight] = common(middleLeft, middleRight);
  const whole = (list, same) => [
    ...list.slice(0, head).map((word) => [true, word]),
    ...list.slice(head, list.length - tail).map((word, i) => [same[i] === 1, word]),
    ...list.slice(list.length - tail).map((word) => [true, word]),
  ];
  return [joined(whole(left, sameLeft)), joined(whole(right, sameRight))];
}

/** Mark the words of a longest common subsequence; too long texts have none in common. */
function common(a, b) {
  const [inA, inB] = [new Uint8Array(a.length), new Uint8Array(b.length)];
  if (a.length * b.length > MOST_PRODUCTS) return [inA, inB];
  const width = b.length + 1;
  const longest = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      longest[i * width + j] = a[i] === b[j]
        ? longest[(i + 1) * width + j + 1] + 1
        : Math.max(longest[(i + 1) * width + j], longest[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) inA[i++] = inB[j++] = 1;
    else if (longest[(i + 1) * width + j] >= longest[i * width + j + 1]) i++;
    else j++;
  }
  return [inA, inB];
}

function joined(pieces) {
  const stretches = [];
  for (const [same, word] of pieces) {
    const last = stretches.at(-1);
    if (last && last[0] === same) last[1] += word;
    else stretches.push([same, word]);
  }
  return stretches;
}

/** Append the stretches of one side; `side` is "out" or "in". */
function appendDifference(element, stretches, side) {
  for (const [same, text] of stretches) {
    const target = same ? element : element.appendChild(make("mark", side));
    appendText(target, text);
  }
}
