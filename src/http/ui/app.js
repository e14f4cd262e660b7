// The page: a search in the address bar, its answer below. State that matters is in the URL.
import { Problem, get, signOut } from "./api.js";
import { drawBars } from "./bars.js";
import { byId, el } from "./dom.js";
import { showRecord } from "./drawer.js";
import { count, localInput, visible, zone } from "./format.js";
import { Results } from "./results.js";

const PAGE = 100;
const LIVE_MS = 2000;
const BUCKETS = 90;
const SHOWN_MAX = 5000;
const RANGES = ["15m", "1h", "24h", "7d", "all", "custom"];

const ui = Object.fromEntries(["search", "q", "range", "custom", "from", "to", "live", "me", "problem", "bars", "rows", "empty", "more",
  "results", "drawer", "state", "help", "help-open", "help-fields", "sign-out", "time-head"].map((id) => [id, byId(id)]));
const results = new Results(ui.rows, openRecord);
let cursor = null;
let running = null;
let timer = null;

function readUrl() {
  const url = new URLSearchParams(location.search);
  ui.q.value = url.get("q") ?? "";
  const fixed = url.has("from") || url.has("to");
  const range = url.get("range");
  ui.range.value = fixed ? "custom" : RANGES.includes(range) && range !== "custom" ? range : "24h";
  ui.from.value = localInput(url.get("from") ?? "");
  ui.to.value = localInput(url.get("to") ?? "");
  ui.custom.hidden = !fixed;
}

/** The time range as the API takes it. */
function range() {
  if (ui.range.value === "all") return {};
  if (ui.range.value !== "custom") return { from: `-${ui.range.value}` };
  const iso = (text) => (text ? new Date(text).toISOString() : undefined);
  return { from: iso(ui.from.value), to: iso(ui.to.value) };
}

function writeUrl() {
  const url = new URLSearchParams();
  if (ui.q.value.trim()) url.set("q", ui.q.value.trim());
  if (ui.range.value === "custom") for (const [name, value] of Object.entries(range())) { if (value) url.set(name, value); }
  else if (ui.range.value !== "24h") url.set("range", ui.range.value);
  const next = url.size > 0 ? `/?${url}` : "/";
  // The first search replaces the address it came with, so that Back leads away and not to itself.
  if (next !== location.pathname + location.search) history[results.records.length > 0 ? "pushState" : "replaceState"](null, "", next);
}

/** Searches. `repeat` is the page itself looking again; `more` goes on where the list ends. */
async function search({ repeat = false, more = false } = {}) {
  if (repeat && running) return;
  running?.abort();
  const mine = (running = new AbortController());
  const asked = { q: ui.q.value.trim(), ...range() };
  if (!repeat && !more) say("Searching…");
  try {
    const answer = await get("/events", { ...asked, limit: PAGE, cursor: more ? cursor : null, after: repeat ? 0 : null }, mine.signal);
    showProblem(null);
    take(answer, { repeat, more });
    if (!more) drawBars(ui.bars, await get("/events/histogram", { ...asked, buckets: BUCKETS }, mine.signal), chooseTime);
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error, asked.q);
  } finally {
    if (running === mine) running = null;
  }
}

function take(answer, { repeat, more }) {
  let records = answer.items;
  if (more) records = [...results.records, ...records];
  if (repeat && records.length > 0) {
    const oldest = records.at(-1).seq;
    const older = results.records.filter((record) => record.seq < oldest);
    if (older.length > 0) records = [...records, ...older].slice(0, SHOWN_MAX); else cursor = answer.next_cursor;
  } else {
    cursor = answer.next_cursor;
  }
  results.show(records, { arrived: repeat });
  ui.more.hidden = !cursor || records.length >= SHOWN_MAX;
  ui.empty.hidden = records.length > 0;
  ui.empty.textContent = ui.q.value.trim() || ui.range.value !== "all"
    ? "Nothing found. Try a longer time range or fewer words." : "The log holds nothing that you may see yet.";
  const { log_seq: log, indexed_seq: indexed } = answer.as_of;
  const lag = log > indexed ? `, searchable to ${count(indexed)}` : "";
  say(`${count(records.length)} shown${cursor ? ", more below" : ""} · log at ${count(log)}${lag}`);
  const open = results.records.find((record) => record.id === ui.drawer.dataset.id);
  if (open && !ui.drawer.hidden && repeat) openRecord(open, { keepFocus: true });
}

function showProblem(error, query = "") {
  ui.problem.hidden = !error;
  ui.q.setAttribute("aria-invalid", String(Boolean(error?.problem?.span)));
  if (!error) return;
  say("");
  const problem = error instanceof Problem ? error.problem : { detail: "the page failed. Load it again" };
  if (!(error instanceof Problem)) console.error(error);
  const parts = [];
  if (problem.span && query) parts.push(underlined(query, problem.span));
  const text = el("p", {}, sentence(visible(problem.detail ?? problem.title ?? "")));
  if (problem.status === 401) {
    setLive(false);
    text.append(el("a", { class: "button small", href: `/auth/login?${new URLSearchParams({ next: location.pathname + location.search })}` }, "Sign in"));
  }
  if (problem.suggestion) {
    text.append(el("button", { type: "button", class: "button small", onclick: () => suggest(query, problem) }, `Use ${visible(problem.suggestion)}`));
  }
  ui.problem.replaceChildren(...parts, text);
}

/** The query with the place of its error marked. Spans count bytes of UTF-8. */
function underlined(query, [start, end]) {
  const bytes = new TextEncoder().encode(query);
  const part = (from, to) => visible(new TextDecoder().decode(bytes.slice(from, to)));
  const marked = end > start ? part(start, end) : "\u00a0";
  return el("pre", {}, part(0, start), el("mark", {}, marked || "\u00a0"), part(end));
}

function suggest(query, { span: [start, end], suggestion }) {
  const bytes = new TextEncoder().encode(query);
  const text = new TextDecoder();
  ui.q.value = text.decode(bytes.slice(0, start)) + suggestion + text.decode(bytes.slice(end));
  submit();
}

const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."} ` : "");
const say = (text) => { ui.state.textContent = text; };

function openRecord(record, { keepFocus = false } = {}) {
  results.mark(record.id);
  showRecord(ui.drawer, record, { add: addTerm, close: closeRecord, notify: say });
  if (!keepFocus && matchMedia("(max-width: 900px)").matches) ui.drawer.focus();
}

function closeRecord() {
  ui.drawer.hidden = true;
  ui.drawer.replaceChildren();
  results.rows.get(results.chosen)?.row.focus();
}

function addTerm(term) {
  const query = ui.q.value.trim();
  if (query.split(/\s+/).includes(term)) return;
  // OR binds looser than what we add.
  const whole = /\bor\b/i.test(query) && !/^\([^()]*\)$/.test(query) ? `(${query})` : query;
  ui.q.value = whole ? `${whole} ${term}` : term;
  submit();
}

function chooseTime(from, to) {
  ui.range.value = "custom";
  ui.custom.hidden = false;
  ui.from.value = localInput(from);
  ui.to.value = localInput(new Date(Math.max(Date.parse(to), Date.parse(from) + 1000)).toISOString());
  submit();
}

function submit() {
  writeUrl();
  document.title = ui.q.value.trim() ? `${ui.q.value.trim().slice(0, 80)} · pgwitness` : "pgwitness";
  return search();
}

function setLive(on) {
  ui.live.setAttribute("aria-pressed", String(on));
  clearInterval(timer);
  timer = on ? setInterval(() => { if (!document.hidden) search({ repeat: true }); }, LIVE_MS) : null;
}

function onKey(event) {
  if (event.key === "Escape") {
    if (ui.help.open) return;
    if (!ui.drawer.hidden) { event.preventDefault(); closeRecord(); } else if (document.activeElement === ui.q) ui.q.blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || ui.help.open || event.target.closest("input, select, textarea")) return;
  if (event.key === "/") { event.preventDefault(); ui.q.focus(); ui.q.select(); }
  else if (event.key === "?") { event.preventDefault(); ui.help.showModal(); }
  else if (["ArrowDown", "ArrowUp", "j", "k"].includes(event.key) && !event.target.closest("#drawer pre")) {
    event.preventDefault();
    const record = results.move(event.key === "ArrowDown" || event.key === "j" ? 1 : -1);
    if (record && !ui.drawer.hidden) openRecord(record, { keepFocus: true });
  }
}

async function whoAmI() {
  try {
    const me = await get("/me");
    ui.me.replaceChildren(el("span", { title: visible(`${me.sub} at ${me.iss}`) }, visible(me.user)));
    for (const role of me.roles.filter((role) => role !== "self")) ui.me.after(el("span", { class: "tag" }, visible(role)));
    if (!me.roles.includes("auditor")) ui.q.placeholder = "Search your own records";
    const { fields } = await get("/fields");
    if (fields.length > 0) ui["help-fields"].replaceChildren("Fields: ", ...fields.map((field) => el("code", { title: field.meaning }, field.name)));
  } catch (error) {
    showProblem(error);
  }
}

ui.search.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
ui.range.addEventListener("change", () => {
  ui.custom.hidden = ui.range.value !== "custom";
  if (ui.custom.hidden) submit(); else ui.from.focus();
});
ui.live.addEventListener("click", () => setLive(timer === null));
ui.more.addEventListener("click", () => search({ more: true }));
ui["help-open"].addEventListener("click", () => ui.help.showModal());
ui["sign-out"].addEventListener("click", signOut);
document.addEventListener("keydown", onKey);
addEventListener("popstate", () => { readUrl(); search(); });
ui["time-head"].textContent = `Time (${zone()})`;
readUrl();
whoAmI();
submit();
