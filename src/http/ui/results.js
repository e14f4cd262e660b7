// The table of records: one row each, kept by id so that a refresh moves nothing under the hand.
import { el } from "./dom.js";
import { count, duration, longTime, oneLine, shortTime, visible } from "./format.js";

/** What a record's end is called. */
export const ending = (record) => (record.running ? "running" : record.outcome ?? "");

export class Results {
  /** `open(record)` is called when a record is chosen. */
  constructor(body, open) {
    this.body = body;
    this.open = open;
    this.records = [];
    this.rows = new Map();
    this.chosen = null;
  }

  /** Shows these records; `arrived` marks those not shown before. */
  show(records, { arrived = false } = {}) {
    const before = this.rows;
    this.records = records;
    this.rows = new Map();
    const rows = records.map((record) => {
      const known = before.get(record.id);
      const mark = `${ending(record)} ${record.txn_outcome} ${record.rows}`;
      const row = known?.mark === mark ? known.row : this.row(record, arrived && !known);
      this.rows.set(record.id, { row, mark });
      return row;
    });
    const focused = document.activeElement?.dataset?.id;
    // Rows that stay are not touched: replacing them would lose focus and selection of text.
    rows.forEach((row, index) => {
      const there = this.body.children[index];
      if (there !== row) this.body.insertBefore(row, there ?? null);
    });
    while (this.body.children.length > rows.length) this.body.lastElementChild.remove();
    this.mark(this.chosen);
    if (focused && document.activeElement?.dataset?.id !== focused) this.rows.get(focused)?.row.focus();
  }

  /** Marks a record as chosen and makes it the table's stop for Tab. */
  mark(id) {
    this.chosen = this.rows.has(id) ? id : null;
    const stop = this.chosen ?? this.records[0]?.id;
    for (const [known, { row }] of this.rows) {
      row.setAttribute("aria-selected", String(known === this.chosen));
      row.tabIndex = known === stop ? 0 : -1;
    }
  }

  /** Moves the choice by some rows; returns the record now chosen. */
  move(steps) {
    const current = this.records.findIndex((record) => record.id === (this.chosen ?? document.activeElement?.dataset?.id));
    const next = current < 0 ? (steps > 0 ? 0 : this.records.length - 1) : current + steps;
    const record = this.records[Math.min(Math.max(next, 0), this.records.length - 1)];
    if (!record) return null;
    this.mark(record.id);
    const { row } = this.rows.get(record.id);
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
    return record;
  }

  row(record, isNew) {
    const cell = (name, text, title, more = "") => el("td", { class: `${name} ${more}`.trim(), title }, text);
    const statement = record.sql != null;
    const said = statement ? record.sql : record.detail ?? record.error ?? "";
    const place = [record.role, record.db].filter(Boolean).map((part) => oneLine(part, 80));
    const tables = (record.tables ?? []).map((table) => oneLine(table, 140));
    const end = ending(record);
    return el("tr", {
      "data-id": record.id, "aria-selected": "false", class: isNew && "new",
      onclick: () => this.open(record),
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); this.open(record); } },
    },
    cell("time", shortTime(record.time), `${longTime(record.time)}\n${visible(record.time ?? "")}`),
    cell("user", oneLine(record.user ?? "", 120), visible(record.user ?? "")),
    cell("role", place.join("@"), place.join("@")),
    cell("command", oneLine(record.command ?? (statement ? "" : record.event) ?? "", 60)),
    cell("sql", oneLine(said), undefined, statement ? "" : "said"),
    cell("tables", tables.map((table) => table.replace(/^public\./, "")).join(", "), tables.join("\n")),
    cell("rows", count(record.rows), undefined, "num"),
    cell("duration", duration(statement ? record.duration_us : null), undefined, "num"),
    cell("outcome", oneLine(end, 20), record.error ? visible(record.error) : undefined, `o-${end}`));
  }
}
