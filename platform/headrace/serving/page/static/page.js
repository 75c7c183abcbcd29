// What the page does beyond links and forms: charts over the server's drawings, tool tips, arrow keys, colours, live.

const said = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Numbers, by the same rules as words.py
const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
const grouped = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
const FORMS = {
  number(value) {
    const size = Math.abs(value);
    if (size >= 1e4) {
      const [unit, letter] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([one]) => size >= one * 0.99995);
      return (value / unit).toFixed(1).replace(/\.0$/, "") + letter;
    }
    if (size >= 100 || Number.isInteger(value)) return grouped(value);
    return trim(value.toFixed(size < 10 ? 2 : 1));
  },
  percent(value) {
    const part = value * 100, size = Math.abs(part);
    return part.toFixed(size >= 99.95 || part === 0 ? 0 : size >= 0.05 ? 1 : 2) + "%";
  },
  seconds(value) {
    if (value < 1) return value ? `${(value * 1000).toFixed(0)} ms` : "0 s";
    if (value < 60) return trim(value.toFixed(1)) + " s";
    if (value < 3600) return `${Math.floor(value / 60)} min ${String(Math.floor(value % 60)).padStart(2, "0")} s`;
    if (value < 86400) return `${Math.floor(value / 3600)} h ${String(Math.floor((value % 3600) / 60)).padStart(2, "0")} min`;
    return `${Math.floor(value / 86400)} d ${String(Math.floor((value % 86400) / 3600)).padStart(2, "0")} h`;
  },
  milliseconds: (value) => (value < 1e4 ? `${grouped(value)} ms` : FORMS.seconds(value / 1000)),
  bytes(value) {
    for (const unit of ["B", "KB", "MB", "GB"]) {
      if (value < 1000) return `${value.toFixed(unit === "B" || value >= 100 ? 0 : 1)} ${unit}`;
      value /= 1000;
    }
    return `${value.toFixed(1)} TB`;
  },
};
const written = (value, form) => (value == null ? "–" : (FORMS[form] || FORMS.number)(value));

// Times, in UTC
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const clock = (at) => `${String(at.getUTCHours()).padStart(2, "0")}:${String(at.getUTCMinutes()).padStart(2, "0")}`;
const dayOf = (at) => `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
function when(seconds, step) {
  const at = new Date(seconds * 1000);
  return step >= 86400 ? `${DAYS[at.getUTCDay()]} ${dayOf(at)}` : `${DAYS[at.getUTCDay()]} ${dayOf(at)}, ${clock(at)}`;
}
function ticks(_plot, splits, _axis, _space, apart) {
  let day = "";
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000), own = dayOf(at);
    if (apart >= 86400) return own;  // whole days
    const midnight = at.getUTCHours() === 0 && at.getUTCMinutes() === 0;
    const text = midnight && own !== day ? own : clock(at);
    day = own;
    return text;
  });
}

// Tool tip: one element for all; texts only, never markup
const tip = said("tip");
function show(title, rows, x, y) {
  const head = document.createElement("b");
  head.textContent = title;
  tip.replaceChildren(head, ...rows.map(([name, value]) => {
    const row = document.createElement("div");
    for (const text of [name, value]) row.append(Object.assign(document.createElement("span"), { textContent: text }));
    return row;
  }));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = x + 16 + width > innerWidth ? x - width - 16 : x + 16;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, Math.min(y + 12, innerHeight - height - 8))}px`;
}
const hide = () => { tip.hidden = true; };

// Charts
const plots = new Map();
function draw(figure) {
  const place = figure.querySelector(".plot"), data = JSON.parse(figure.dataset.chart);
  if (place.clientWidth === 0) return;
  const bars = data.shape === "bars";
  const at = (n, line) => (line.colour === 0 && data.before.length ? data.before[n] : data.x[n]);
  const rows = (n) => data.lines.map((line) => [
    line.colour === 0 && data.before.length ? when(at(n, line), data.step) : line.label,
    written(line.values[n], data.form),
  ]);
  const strokes = data.lines.map((line) => colour(line.colour ? `--s${line.colour}` : "--s-prev"));
  const soft = (c) => `color-mix(in srgb, ${c} 14%, transparent)`;
  const faint = colour("--line"), text = colour("--muted");
  // a window that is still going on is drawn as such: its values grow yet
  const last = data.x.length - 1, open = data.unfinished && !bars && last > 0;
  const drawn = data.lines.flatMap((line, n) => (open && line.colour
    ? [{ line, n, values: line.values.map((one, at) => (at === last ? null : one)) }, { line, n, part: "end", values: line.values.map((one, at) => (at < last - 1 ? null : one)) }]
    : [{ line, n, values: line.values }]));
  const options = {
    width: place.clientWidth,
    height: place.clientHeight,
    padding: [10, 22, 0, 0],
    tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7, width: 2, fill: () => colour("--surface") } },
    scales: { y: { range: (_u, _low, high) => [0, high > 0 ? high * 1.08 : 1] }, x: { time: true, range: bars ? (_u, low, high) => [low - data.step / 2, high + data.step / 2] : undefined } },
    series: [{}, ...drawn.map(({ line, n, part }) => ({
      label: line.label,
      stroke: strokes[n],
      width: line.colour === 0 ? 1.5 : bars ? 0 : 2,
      dash: line.colour === 0 ? [5, 4] : part === "end" ? [3, 4] : undefined,
      fill: bars && line.colour ? strokes[n] : n === 0 && data.lines.every((one) => one.colour < 2) ? soft(strokes[n]) : undefined,
      paths: bars && line.colour ? uPlot.paths.bars({ size: [0.8, 48], radius: 0.15 }) : undefined,
      points: { show: false },
    }))],
    axes: [
      { stroke: text, grid: { show: false }, ticks: { stroke: faint, size: 4 }, values: ticks, font: `11px ${getComputedStyle(document.body).fontFamily}`, gap: 4, size: 28, space: 64, incrs: data.step >= 86400 ? [1, 2, 3, 7, 14, 28, 56, 112].map((one) => one * 86400) : [60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 345600] },
      { stroke: text, grid: { stroke: faint, width: 1 }, ticks: { show: false }, border: { show: false }, values: (_u, marks) => marks.map((one) => written(one, data.form).replace(/\.0%$/, "%")), font: `11px ${getComputedStyle(document.body).fontFamily}`, gap: 6, size: (_u, values) => 14 + 6.4 * Math.max(3, ...(values || []).map((one) => one.length)), space: 44 },
    ],
    hooks: {
      setCursor: [(u) => {
        const n = u.cursor.idx;
        if (n == null || u.cursor.left < 0) return hide();
        const box = u.over.getBoundingClientRect();
        show(when(data.x[n], data.step), rows(n), box.left + u.cursor.left, box.top + Math.max(0, u.cursor.top));
      }],
    },
  };
  plots.get(figure)?.plot.destroy();
  place.querySelectorAll(".uplot").forEach((one) => one.remove());
  const plot = new uPlot(options, [data.x, ...drawn.map((one) => one.values)], place);
  place.querySelector(".still")?.classList.add("covered");
  plots.set(figure, { plot, data, rows });
  if (!place.dataset.keys) {
    place.dataset.keys = "1";
    let n = -1;
    place.addEventListener("keydown", (event) => {
      const own = plots.get(figure), last = own.data.x.length - 1;
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") return own.plot.setCursor({ left: -10, top: -10 });
      if (step === undefined) return;
      event.preventDefault();
      n = Math.max(0, Math.min(last, n < 0 ? (step < 0 ? last : 0) : n + step));
      own.plot.setCursor({ left: own.plot.valToPos(own.data.x[n], "x"), top: 20 });
      said("said").textContent = [when(own.data.x[n], own.data.step), ...own.rows(n).map((one) => one.join(": "))].join(", ");
    });
    place.addEventListener("blur", () => plots.get(figure)?.plot.setCursor({ left: -10, top: -10 }));
    place.addEventListener("mouseleave", hide);
  }
}
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const own = plots.get(target.closest(".chart"));
    if (!own) draw(target.closest(".chart"));
    else if (own.plot.width !== target.clientWidth && target.clientWidth) own.plot.setSize({ width: target.clientWidth, height: target.clientHeight });
  }
});
function charts(inside) {
  for (const [figure, { plot }] of plots) if (!figure.isConnected) { plot.destroy(); plots.delete(figure); }
  for (const figure of inside.querySelectorAll(".chart[data-chart]")) {
    if (!plots.has(figure)) { draw(figure); sizes.observe(figure.querySelector(".plot")); }
  }
}
const redraw = () => { for (const figure of [...plots.keys()]) draw(figure); };

// Cells of heat maps say what they hold
document.addEventListener("mouseover", (event) => {
  const cell = event.target.closest?.("[data-tip]");
  if (!cell) { if (!event.target.closest?.(".plot")) hide(); return; }
  const [title, ...rest] = cell.dataset.tip.split("\n");
  const box = cell.getBoundingClientRect();
  show(title, rest.map((one) => one.split("\t")), box.right - 8, box.bottom - 8);
});

// Arrow keys go along lists and over heat maps
document.addEventListener("keydown", (event) => {
  const list = event.target.closest?.("[data-arrows]");
  if (event.key === "Escape") {
    const open = document.querySelector("details.menu[open]");
    if (open) { open.open = false; open.querySelector("summary").focus(); }
    hide();
  }
  if (!list || event.ctrlKey || event.metaKey || event.altKey) return;
  const rows = list.matches("table") ? [...list.tBodies[0].rows].map((row) => [...row.cells].filter((cell) => cell.tabIndex >= -1 && cell.dataset.tip !== undefined)) : null;
  if (rows) {
    const y = rows.findIndex((row) => row.includes(event.target)), x = y < 0 ? -1 : rows[y].indexOf(event.target);
    const to = { ArrowLeft: [y, x - 1], ArrowRight: [y, x + 1], ArrowUp: [y - 1, x], ArrowDown: [y + 1, x] }[event.key];
    const next = to && rows[to[0]]?.[to[1]];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    const box = next.getBoundingClientRect(), [title, ...rest] = next.dataset.tip.split("\n");
    show(title, rest.map((one) => one.split("\t")), box.right - 8, box.bottom - 8);
    return;
  }
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = [...list.querySelectorAll("a[href]")], n = all.indexOf(document.activeElement);
  if (n < 0 || !all[n + step]) return;
  event.preventDefault();
  all[n + step].focus();
});

// Menus close when the eye goes elsewhere
document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(event.target)) open.open = false;
});

// Colours, without a way to the server and back
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-theme-to]");
  if (!link) return;
  event.preventDefault();
  const to = link.dataset.themeTo;
  document.cookie = `headrace-theme=${to}; path=/; max-age=31536000; samesite=lax`;
  if (to === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = to;
  for (const one of document.querySelectorAll("a[data-theme-to]")) one.toggleAttribute("aria-current", one === link);
  redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// A panel that failed is asked for again in its own place; one that never answered says so
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-again]"), body = link?.closest(".body");
  if (!body) return;
  event.preventDefault();
  htmx.ajax("GET", link.getAttribute("href"), { target: body, swap: "innerHTML" });
});
for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, (event) => {
    const body = event.detail.elt.closest(".body");
    if (!body || body.querySelector("[data-kept]")) return;
    const box = document.createElement("div"), head = document.createElement("strong"), why = document.createElement("p"), again = document.createElement("a");
    box.className = "failed"; why.className = "why"; again.className = "button";
    head.append(Object.assign(document.createElement("span"), { className: "dot bad" }), "No answer for now");
    why.textContent = "The server does not answer.";
    again.textContent = "Try again"; again.dataset.again = ""; again.href = body.getAttribute("hx-get") || location.href;
    box.append(head, why, again);
    body.replaceChildren(box);
  });
}

// Rows that a reader has opened stay open when a live panel comes anew
let opened = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  opened = [...event.target.querySelectorAll("details[open][data-key]")].map((one) => one.dataset.key);
});
document.addEventListener("htmx:afterSwap", (event) => {
  for (const one of event.target.querySelectorAll("details[data-key]")) if (opened.includes(one.dataset.key)) one.open = true;
  charts(event.target);
});

// Live: each publication brings the live panels anew
const stream = document.querySelector("[data-stream]");
if (stream) {
  const state = stream.querySelector("[data-state]"), dot = stream.querySelector(".dot");
  let waiting = false, last = 0;
  const refresh = () => {
    if (waiting || document.hidden) { waiting = true; return; }
    const pause = Math.max(0, last + 500 - Date.now());
    waiting = true;
    setTimeout(() => { waiting = false; last = Date.now(); htmx.trigger(document.body, "live"); }, pause);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden && waiting) { waiting = false; refresh(); } });
  const source = new EventSource(stream.dataset.stream);
  const tell = (text, kind) => { state.textContent = text; dot.className = `dot ${kind}`; };
  source.onopen = () => tell("live", "live");
  source.onerror = () => tell("connecting again", "warn");
  for (const name of (stream.dataset.events || "message").split(" ")) source.addEventListener(name, refresh);
  addEventListener("pagehide", () => source.close());
}

const menu = document.querySelector(".side nav"), here = menu?.querySelector("[aria-current]");
if (here && menu.scrollWidth > menu.clientWidth) menu.scrollLeft = here.offsetLeft - menu.clientWidth / 2 + here.offsetWidth / 2;
document.documentElement.classList.add("js");
charts(document);
