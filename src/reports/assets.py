"""Style and script of the HTML report, as strings so that the page is one file and the package needs no data files.

Six colours that people with any common colour blindness tell apart (after Okabe and Ito, made darker for a light
ground and lighter for a dark one); each line also has its dash pattern and its number.
"""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1b1b; --dim: #595959; --rule: #d9d9d9; --mark: #f0f4f8;
  --c0: #0067a5; --c1: #c24a00; --c2: #007a59; --c3: #a8467f; --c4: #8a6a00; --c5: #4d4d4d; }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {
  --ground: #16181b; --ink: #ececec; --dim: #a8a8a8; --rule: #3a3d42; --mark: #22272e;
  --c0: #4ba3e3; --c1: #ff8a4c; --c2: #3ccf9f; --c3: #e590c2; --c4: #e3bb3c; --c5: #c9c9c9; } }
:root[data-theme=dark] { color-scheme: dark; --ground: #16181b; --ink: #ececec; --dim: #a8a8a8; --rule: #3a3d42;
  --mark: #22272e; --c0: #4ba3e3; --c1: #ff8a4c; --c2: #3ccf9f; --c3: #e590c2; --c4: #e3bb3c; --c5: #c9c9c9; }
:root[data-theme=light] { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.2rem; font: 16px/1.5 system-ui, sans-serif;
  background: var(--ground); color: var(--ink); }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
p { margin: .3rem 0; } .dim { color: var(--dim); } [hidden] { display: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { white-space: nowrap; } td.figure, th.figure { text-align: right; white-space: nowrap; }
td.figure { font-variant-numeric: tabular-nums; } td.setting, td.long { overflow-wrap: anywhere; min-width: 8rem; }
td.short { white-space: nowrap; } label span { display: inline-block; min-width: 1.6em; text-align: right; }
tr.baseline td { color: var(--dim); font-style: italic; }
tbody tr:hover, tbody tr:focus-within { background: var(--mark); }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid var(--c0); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.failed, .unreadable, .not-finite { color: var(--c1); font-weight: 600; }
#theme { float: right; font: inherit; font-size: .85rem; color: var(--dim); background: none;
  border: 1px solid var(--rule); border-radius: .3rem; padding: .1rem .5rem; cursor: pointer; }
#chart { width: 100%; min-width: 40rem; height: auto; font-size: 12px; } #chart text { fill: var(--dim); }
#chart text.place { fill: var(--ink); font-weight: 600; }
path { fill: none; stroke-width: 2; } .grid { stroke: var(--rule); stroke-width: 1; }
path.baseline { stroke: var(--dim); stroke-width: 1; stroke-dasharray: 1 3; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); }
.band { stroke: none; opacity: .16; } circle { stroke-width: 2; fill: none; }
.band.c0 { fill: var(--c0); } .band.c1 { fill: var(--c1); } .band.c2 { fill: var(--c2); } .band.c3 { fill: var(--c3); }
.band.c4 { fill: var(--c4); } .band.c5 { fill: var(--c5); }
#chart.chosen g[data-row] { opacity: .22; } #chart.chosen g[data-row].chosen { opacity: 1; }
.swatch { width: 34px; height: 10px; vertical-align: middle; } label { white-space: nowrap; cursor: pointer; }
@media print { #theme, input { display: none; } }
"""

# The address' part after # keeps order and theme (#sort=3 or #sort=-3, #theme=dark), so that a view can be passed on.
SCRIPT = """
"use strict";
const table = document.getElementById("runs"), chart = document.getElementById("chart");
const state = new URLSearchParams(location.hash.slice(1));
function remember(key, value) {
  state.set(key, value);
  history.replaceState(null, "", "#" + state);
}
function sort(column, down) {
  const body = table.tBodies[0], heads = table.tHead.rows[0].cells;
  const key = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const rows = [...body.rows].map((row, i) => [key(row), i, row]);
  const figures = rows.every(([k]) => k === "" || !Number.isNaN(Number(k)));
  rows.sort(([a, i], [b, j]) => {
    if (a === "" || b === "") return (a === "") - (b === "") || i - j;
    const order = figures ? a - b : a.localeCompare(b, undefined, {numeric: true});
    return (down ? -order : order) || i - j;
  });
  body.append(...rows.map(([, , row]) => row));
  [...heads].forEach((head, i) => i === column
    ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
}
if (table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    sort(column, down);
    remember("sort", (down ? "-" : "") + (column + 1));
  }));
  const wanted = Number(state.get("sort"));
  if (wanted && table.tHead.rows[0].cells[Math.abs(wanted) - 1]) sort(Math.abs(wanted) - 1, wanted < 0);
}
function spread() {  // numbers at the lines' ends: as near to their line as 13 units between neighbours allow
  const labels = [...chart.querySelectorAll("g[data-row]:not([hidden]) text.place")]
    .sort((a, b) => a.dataset.y - b.dataset.y);
  const blocks = [];  // neighbours that touch move as one block, around the middle of where they belong
  labels.forEach((label, i) => {
    blocks.push({first: i, n: 1, sum: label.dataset.y - 13 * i});
    while (blocks.length > 1) {
      const [a, b] = blocks.slice(-2);
      if (a.sum / a.n <= b.sum / b.n) break;
      blocks.splice(-2, 2, {first: a.first, n: a.n + b.n, sum: a.sum + b.sum});
    }
  });
  for (const {first, n, sum} of blocks)
    for (let i = first; i < first + n; i++) labels[i].setAttribute("y", (sum / n + 13 * i).toFixed(1));
}
const curve = row => chart?.querySelector(`g[data-row="${row.dataset.row}"]`);
for (const row of table ? table.tBodies[0].rows : []) {
  const line = curve(row), box = row.querySelector("input");
  if (!line || !box) continue;
  const draw = () => { line.toggleAttribute("hidden", !box.checked); spread(); };
  draw();  // a reloaded page keeps its boxes as they were left
  box.addEventListener("change", draw);
  const choose = on => { chart.classList.toggle("chosen", on && box.checked); line.classList.toggle("chosen", on); };
  row.addEventListener("mouseenter", () => choose(true));
  row.addEventListener("mouseleave", () => choose(false));
}
const button = document.getElementById("theme"), root = document.documentElement;
if (state.get("theme")) root.dataset.theme = state.get("theme");
button.hidden = false;
button.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  remember("theme", root.dataset.theme);
});
"""
