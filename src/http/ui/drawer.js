// One record in full, grouped as people ask: the statement, who, what, how it ended, the session.
// Every field of the record is shown somewhere; those this page does not know come last.
import { el } from "./dom.js";
import { bytes, count, duration, longTime, param, term, visible } from "./format.js";
import { marked } from "./marks.js";
import { ending } from "./results.js";

// Fields of the query language whose values can be added to a search.
const SEARCHABLE = new Set(["id", "seq", "event", "outcome", "txn_outcome", "user", "sub", "iss", "groups", "login", "session",
  "role", "db", "upstream", "ip", "app", "device", "fingerprint", "command", "class", "tables", "columns", "reads", "filters",
  "writes", "via", "analysis", "sqlstate", "tags", "is"]);
const LABELS = { user: "Person", sub: "Subject", iss: "Provider", groups: "Groups", login: "Login", session: "Session", role: "Role",
  db: "Database", upstream: "Upstream", ip: "Address", app: "Application", device: "Device", command: "Command", class: "Class",
  via: "Through", analysis: "Analysis", analysis_notes: "Notes", fingerprint: "Shape", tags: "Tags", outcome: "Outcome",
  txn_outcome: "Transaction", rows: "Rows", bytes: "Data", duration_us: "Duration", sqlstate: "SQLSTATE", error: "Error",
  search_path: "Search path", event: "Event", detail: "Detail", id: "Id", seq: "Position", time: "Time (UTC)", is: "Is",
  sql_hex: "Statement, hex" };
const GROUPS = [
  ["Who", ["user", "groups", "role", "db", "ip", "app"]],
  ["How it ended", ["outcome", "txn_outcome", "rows", "bytes", "duration_us", "sqlstate", "error"]],
  ["Session", ["session", "login", "auth", "iss", "sub", "upstream", "search_path", "device"]],
];
const OWN_PLACE = new Set(["sql", "params", "tables", "columns", "reads", "filters", "writes", "running"]);
const WHAT = ["command", "class", "via", "tags", "analysis", "analysis_notes", "fingerprint"];

/** Shows a record in `host`. `add(term)` adds to the search, `close()` closes. */
export function showRecord(host, record, { add, close, notify }) {
  const shown = new Set(OWN_PLACE);
  const group = (title, names) => {
    const list = names.filter((name) => !isEmpty(record[name]));
    names.forEach((name) => shown.add(name));
    return list.length === 0 ? [] : [el("h3", {}, title), el("dl", {}, list.flatMap((name) => pair(name, record[name], add)))];
  };
  const parts = [top(record, { close, notify }), ...statement(record)];
  if (record.sql == null && record.detail) { parts.push(el("pre", {}, visible(record.detail))); shown.add("detail"); }
  parts.push(...group(...GROUPS[0]), ...what(record, add, group), ...group(...GROUPS[1]), ...group(...GROUPS[2]));
  parts.push(...group("Record", ["id", "seq", "time", "event", "is", "detail", ...Object.keys(record).filter((name) => !shown.has(name))]));
  const same = host.dataset.id === record.id;
  const scrolled = host.scrollTop;
  host.replaceChildren(...parts);
  host.dataset.id = record.id;
  host.scrollTop = same ? scrolled : 0;
  host.hidden = false;
}

function top(record, { close, notify }) {
  const end = ending(record);
  const copy = (label, text) => el("button", { type: "button", class: "button small", onclick: async () => {
    try { await navigator.clipboard.writeText(text()); notify(`Copied: ${label}`); } catch { notify("The browser did not allow copying"); }
  } }, `Copy ${label}`);
  const link = () => `${location.origin}/?${new URLSearchParams({ q: term("id", record.id), range: "all" })}`;
  return el("div", { class: "top" },
    el("div", { class: "title" },
      el("h2", {}, visible(record.command ?? record.event ?? "Record")),
      el("span", { class: `tag o-${end}` }, visible(end)),
      el("button", { type: "button", class: "button quiet small", "aria-label": "Close the record", title: "Close (Esc)", onclick: close }, "✕")),
    el("p", { class: "sub" }, `${longTime(record.time)} by ${visible(record.user ?? "nobody")}`),
    el("div", { class: "actions" },
      record.sql != null ? copy("statement", () => record.sql) : null, copy("JSON", () => JSON.stringify(record, null, 2)), copy("link", link)));
}

function statement(record) {
  if (record.sql == null) return [];
  const parts = [el("pre", { tabindex: 0, "aria-label": "Statement" }, marked(record.sql, record))];
  const params = record.params ?? [];
  if (params.length > 0) {
    const list = params.flatMap((value, index) => [el("dt", {}, `$${index + 1}`), el("dd", {}, el("span", { class: "fixed" }, visible(param(value))))]);
    parts.push(el("h3", {}, "Parameters"), el("dl", {}, list));
  }
  return parts;
}

function what(record, add, group) {
  const parts = group("What", WHAT);
  const tables = columnsByTable(record);
  if (tables.size === 0) return parts;
  const kinds = ["reads", "filters", "writes"];
  const has = Object.fromEntries(kinds.map((kind) => [kind, new Set(record[kind] ?? [])]));
  const rows = [...tables].flatMap(([table, columns]) => [
    el("tr", { class: "table" }, el("td", {}, value("tables", table, add)), ...kinds.map(() => el("td"))),
    ...columns.map((column) => el("tr", {},
      el("td", {}, value("columns", column, add, column.slice(table.length + 1))),
      ...kinds.map((kind) => el("td", { class: "mark" }, has[kind].has(column) ? "●" : "")))),
  ]);
  const head = el("tr", {}, el("th", { scope: "col" }, "Table, column"), ...["read", "filter", "write"].map((name) => el("th", { scope: "col" }, name)));
  const table = el("table", { class: "columns" }, el("thead", {}, head), el("tbody", {}, rows));
  return parts.length > 0 ? [parts[0], table, ...parts.slice(1)] : [el("h3", {}, "What"), table];
}

function columnsByTable(record) {
  const tables = new Map((record.tables ?? []).map((table) => [table, []]));
  const columns = new Set([record.columns, record.reads, record.filters, record.writes].flatMap((list) => list ?? []));
  for (const column of [...columns].sort()) {
    const table = column.slice(0, Math.max(column.lastIndexOf("."), 0));
    if (!tables.has(table)) tables.set(table, []);
    tables.get(table).push(column);
  }
  return tables;
}

function pair(name, given, add) {
  const label = LABELS[name] ?? visible(name);
  return [el("dt", { title: name }, label), el("dd", {}, ...shownValue(name, given, add))];
}

function shownValue(name, given, add) {
  if (name === "auth") return [el("span", { class: "fixed" }, Object.entries(given).map(([key, one]) => visible(`${key}=${one}`)).join("  "))];
  if (name === "duration_us") return [el("span", { class: "fixed" }, duration(given))];
  if (name === "bytes") return [el("span", { class: "fixed" }, bytes(given))];
  if (name === "rows") return [el("span", { class: "fixed" }, count(given))];
  if (Array.isArray(given) && SEARCHABLE.has(name)) return given.map((one) => value(name, one, add));
  if (SEARCHABLE.has(name) && typeof given !== "object") return [value(name, given, add)];
  const text = Array.isArray(given) ? given.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n")
    : typeof given === "object" ? JSON.stringify(given) : String(given);
  return [el("span", { class: "fixed" }, visible(text))];
}

function value(name, one, add, label = String(one)) {
  const field = { tables: "table", columns: "column" }[name] ?? name;
  return el("button", {
    type: "button", class: "value", title: `Add ${visible(term(field, one))} to the search; with Shift, exclude it`,
    onclick: (event) => add(term(field, one, event.shiftKey)),
  }, visible(label));
}

const isEmpty = (given) => given == null || given === "" || (typeof given === "object" && Object.keys(given).length === 0);
