// Records over time. A click or a drag over the bars chooses that time.
import { el, svg } from "./dom.js";
import { count, longTime } from "./format.js";

const HEIGHT = 52;
const STEP = 10;

/** Draws a histogram into `host`; `choose(fromIso, toIso)` is called with a chosen time. */
export function drawBars(host, { from, step_us: stepUs, counts, to }, choose) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  host.hidden = counts.length === 0;
  if (host.hidden) return;
  const most = Math.max(...counts, 1);
  const start = Date.parse(from);
  const at = (index) => new Date(start + (index * stepUs) / 1000).toISOString();
  const picture = svg("svg", {
    viewBox: `0 0 ${counts.length * STEP} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${total} records from ${longTime(from)} to ${longTime(to)}, at most ${most} in one bar`,
  });
  const groups = counts.map((n, index) => {
    const height = n === 0 ? 0 : Math.max(2, (n / most) * (HEIGHT - 4));
    return svg("g", {},
      svg("title", {}, `${longTime(at(index)).slice(0, 19)}: ${count(n)}`),
      svg("rect", { class: "back", x: index * STEP, y: 0, width: STEP, height: HEIGHT }),
      svg("rect", { class: "bar", x: index * STEP + 1, y: HEIGHT - height, width: STEP - 2, height }));
  });
  picture.append(...groups, svg("line", { x1: 0, x2: counts.length * STEP, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }));
  dragging(picture, groups, (first, last) => choose(at(first), at(last + 1)));
  host.replaceChildren(picture, el("div", { class: "axis" },
    el("span", {}, longTime(from).slice(0, 19)), el("span", {}, `${count(total)} records`), el("span", {}, longTime(to).slice(0, 19))));
}

function dragging(picture, groups, chosen) {
  let first = null;
  let last = null;
  const indexAt = (event) => {
    const box = picture.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left) / box.width) * groups.length);
    return Math.min(Math.max(index, 0), groups.length - 1);
  };
  const show = () => groups.forEach((group, index) => {
    group.classList.toggle("on", first !== null && index >= Math.min(first, last) && index <= Math.max(first, last));
  });
  picture.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    picture.setPointerCapture(event.pointerId);
    first = last = indexAt(event);
    show();
  });
  picture.addEventListener("pointermove", (event) => {
    if (first !== null) { last = indexAt(event); show(); }
  });
  picture.addEventListener("pointerup", () => {
    if (first === null) return;
    const [a, b] = [Math.min(first, last), Math.max(first, last)];
    first = null;
    show();
    chosen(a, b);
  });
  picture.addEventListener("pointercancel", () => { first = null; show(); });
}
