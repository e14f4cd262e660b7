// Which words of a statement name the tables and columns that its record lists. By name, not by place: a word that
// could be several of them shows them all.
import { el } from "./dom.js";
import { visible } from "./format.js";

// Strings, dollar quotes and comments hold no names; quoted names and words may.
const PIECE = /'(?:[^']|'')*'|\$([A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$[\s\S]*?\$\1\$|--[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/g;
const LONGEST = 100_000;

/** A statement's text with the touched names marked. */
export function marked(sql, record) {
  const known = touched(record);
  if (known.size === 0 || sql.length > LONGEST) return [visible(sql)];
  const parts = [];
  let from = 0;
  for (const match of sql.matchAll(PIECE)) {
    const names = known.get(folded(match[0]));
    if (!names) continue;
    parts.push(visible(sql.slice(from, match.index)));
    const title = [...names].map(([name, how]) => `${name} (${[...how].join(", ")})`).join("\n");
    parts.push(el("u", { class: kind(names), title }, visible(match[0])));
    from = match.index + match[0].length;
  }
  parts.push(visible(sql.slice(from)));
  return parts;
}

function folded(piece) {
  if (piece.startsWith('"')) return piece.slice(1, -1).replaceAll('""', '"');
  return /^['$\-/]/.test(piece) ? null : piece.toLowerCase();
}

// The last part of each name, as PostgreSQL stores it: what it stands for, and how that was touched.
function touched(record) {
  const known = new Map();
  for (const [list, how] of [["tables", "table"], ["reads", "read"], ["filters", "filter"], ["writes", "written"]]) {
    for (const name of record[list] ?? []) {
      const last = name.match(/(?:"((?:[^"]|"")*)"|([^".]*))$/);
      const word = last[1]?.replaceAll('""', '"') ?? last[2];
      if (!known.has(word)) known.set(word, new Map());
      const names = known.get(word);
      if (!names.has(name)) names.set(name, new Set());
      names.get(name).add(how);
    }
  }
  return known;
}

function kind(names) {
  const how = new Set([...names.values()].flatMap((set) => [...set]));
  return how.has("written") ? "written" : how.has("read") ? "read" : how.has("filter") ? "filter" : "table";
}
