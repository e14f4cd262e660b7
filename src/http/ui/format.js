// Values as people read them. Pure. Records hold text from anywhere: characters that could hide or
// reorder other text are shown by their number.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

/** Text with hidden characters shown as ⟨U+202E⟩; line ends and tabs stay. */
export function visible(text) {
  return String(text)
    .replaceAll("\r\n", "\n")
    .replace(HIDDEN, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** The same on one line, cut for a table's cell. */
export function oneLine(text, max = 300) {
  const flat = visible(String(text).slice(0, max * 4)).replace(/\s+/g, " ").trim();
  return flat.length > max ? `${flat.slice(0, max)}…` : flat;
}

const pad = (n, width = 2) => String(n).padStart(width, "0");
const clock = (d) => `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;

/** A moment for a table: the time, with the day unless it is today. */
export function shortTime(iso, now = new Date()) {
  const d = new Date(iso);
  if (Number.isNaN(d.getTime())) return visible(iso ?? "");
  const time = `${clock(d)}.${pad(d.getMilliseconds(), 3)}`;
  if (d.toDateString() === now.toDateString()) return time;
  return `${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${clock(d)}`;
}

/** A moment in full, in this browser's time zone. */
export function longTime(iso) {
  const d = new Date(iso);
  if (Number.isNaN(d.getTime())) return visible(iso ?? "");
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${clock(d)}.${pad(d.getMilliseconds(), 3)}`;
}

/** For <input type=datetime-local>. */
export function localInput(iso) {
  const d = new Date(iso);
  return Number.isNaN(d.getTime()) ? "" : `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}T${clock(d)}`;
}

/** This browser's distance from UTC. */
export function zone(now = new Date()) {
  const minutes = -now.getTimezoneOffset();
  if (minutes === 0) return "UTC";
  const abs = Math.abs(minutes);
  return `UTC${minutes < 0 ? "−" : "+"}${Math.floor(abs / 60)}${abs % 60 ? `:${pad(abs % 60)}` : ""}`;
}

export function duration(us) {
  if (us == null) return "";
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 2 : us < 1e5 ? 1 : 0)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(2)} s`;
  return `${Math.floor(us / 6e7)} min ${Math.round((us % 6e7) / 1e6)} s`;
}

export function count(n) {
  return n == null ? "" : Number(n).toLocaleString("en").replaceAll(",", "\u202f");
}

export function bytes(n) {
  if (n == null) return "";
  if (n < 1024) return `${n} B`;
  const unit = Math.min(Math.floor(Math.log2(n) / 10), 4);
  return `${(n / 2 ** (10 * unit)).toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** `field:value` in the query language, quoted where it must be. */
export function term(field, value, not = false) {
  const text = String(value);
  const plain = /^[A-Za-z0-9_][A-Za-z0-9_.@/-]*$/.test(text) && !/\.\./.test(text);
  const quoted = plain ? text : `"${text.replace(/[\\"]/g, "\\$&")}"`;
  return `${not ? "-" : ""}${field}:${quoted}`;
}

/** A parameter as it would stand in SQL, near enough to read. */
export function param(value) {
  if (value === null) return "NULL";
  if (typeof value === "string") return `'${value}'`;
  if (typeof value === "object" && typeof value.hex === "string") return `\\x${value.hex}`;
  return JSON.stringify(value);
}
