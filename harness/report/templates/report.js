"use strict";
(async () => {
  const gunzip = async (text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const held = document.getElementById("data");
  const data = JSON.parse("packed" in held.dataset ? await gunzip(held.textContent) : held.textContent);
  const root = document.documentElement;
  const coarse = matchMedia("(pointer: coarse)").matches;

  // A column that repeats an earlier one is the name of that one.
  const column = (name) => {
    const found = data.columns[name];
    return typeof found === "string" ? column(found) : found;
  };

  // What a log axis cannot show has a row of its own (`at`); nothing is dropped.
  const keeps = {
    positive: (value) => (value > 0 && Number.isFinite(value) ? value : null),
    equal: (value, at) => (value === 0 ? at : null),
    broken: (value, at) => (typeof value === "string" ? at : null),
    base: (value, at) => (value === null || typeof value === "string" ? null : at),
    nats: (value) => (value < 0 ? -value : null),
    band: (value, at) => (value === null || typeof value === "string" ? null : Math.max(value, at)),
  };
  const words = (value) =>
    value === 0 ? "exactly equal" : typeof value === "string" ? `not finite: ${value}` : value?.toExponential(3);

  const fill = (trace) => {
    const { x, y, keep, at } = trace.meta;
    const values = column(y);
    const shown = keep
      ? values.map((value) => keeps[keep](value, at))
      : values.map((value) => (typeof value === "string" ? null : value));
    // Two log-likelihoods over each other: both axes are logarithmic, and both have a sign to lose.
    const along = keep === "nats" ? column(x).map(keeps.nats) : column(x);
    return { ...trace, x: along, y: shown, customdata: keep ? values.map(words) : undefined };
  };

  // A long curve is thinned: of the steps at one place of the screen, the lowest, the highest and one without a number
  // are drawn. So a single spike stays visible; zooming in shows the others.
  const PLACES = 1000;
  const thinned = (trace, range) => {
    const { x } = trace;
    if (trace.meta.keep === "nats") return trace; // in no order, so no point can represent another
    const first = range ? x.findIndex((step) => step >= range[0] - 1) : 0;
    const beyond = range ? x.findIndex((step) => step > range[1] + 1) : -1;
    const from = Math.max(first, 0);
    const to = beyond < 0 ? x.length : beyond;
    if (to - from <= 4 * PLACES) return from === 0 && to === x.length ? trace : pick(trace, from, to, 1);
    return pick(trace, from, to, Math.ceil((to - from) / PLACES));
  };
  const pick = (trace, from, to, size) => {
    const { y } = trace;
    const kept = new Set();
    for (let begin = from; begin < to; begin += size) {
      let low = -1;
      let high = -1;
      let none = -1;
      for (let at = begin; at < Math.min(begin + size, to); at++) {
        if (y[at] === null || y[at] === undefined) none = none < 0 ? at : none;
        else {
          if (low < 0 || y[at] < y[low]) low = at;
          if (high < 0 || y[at] > y[high]) high = at;
        }
      }
      for (const at of [low, high, none].sort((a, b) => a - b)) if (at >= 0) kept.add(at);
    }
    const of = (values) => values && [...kept].map((at) => values[at]);
    return { ...trace, x: of(trace.x), y: of(trace.y), customdata: of(trace.customdata) };
  };

  // The style names the colours; the browser resolves them for the theme of the moment.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const paint = (name) => {
    probe.style.color = name;
    return getComputedStyle(probe).color;
  };
  const painted = (value) => {
    if (typeof value === "string") return value.startsWith("var(--") ? paint(value) : value;
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, painted(item)]));
    return value;
  };

  const AT_EASE = 3000; // ms after which a reader has begun to read, and what is out of sight can be drawn
  const config = {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const drawOne = (id, width) => {
    const figure = data.figures[id];
    const layout = painted(figure.layout);
    layout.font.family = getComputedStyle(document.body).fontFamily;
    if (coarse) layout.dragmode = false; // a finger that scrolls the page must not be caught by a chart
    if (width) layout.width = width;
    const traces = figure.data.map((trace) => fill(painted(trace)));
    const show = (range) => Plotly.react(id, traces.map((trace) => thinned(trace, range)), layout, config);
    show(null);
    const element = document.getElementById(id);
    element.removeAllListeners("plotly_relayout");
    if (traces.every((trace) => trace.x.length <= 4 * PLACES || trace.meta.keep === "nats")) return;
    element.on("plotly_relayout", () => {
      const axis = element.layout.xaxis;
      Object.assign(layout, element.layout);
      show(axis.autorange ? null : axis.range);
    });
  };

  // A chart is drawn when the reader comes near it: the verdict must not wait for a library of megabytes.
  const drawn = new Set();
  const redraw = () => drawn.forEach((id) => drawOne(id));

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((details) => (details.open = true));
    if (window.Plotly) Object.keys(data.figures).forEach((id) => drawOne(id, 680));
  });
  addEventListener("afterprint", () => {
    closed.forEach((details) => (details.open = false));
  });

  // RFC 4180 has no quoting to do here: names, numbers and digests hold neither commas nor quotes, and are checked.
  const cell = (value) => {
    const text = value === null ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (names) => {
    const columns = names.map(column);
    const rows = columns[0].map((_, row) => columns.map((values) => cell(values[row])).join(","));
    return [names.join(","), ...rows, ""].join("\n");
  };
  const offer = (link, ending, type, text) => {
    link.download = `${data.file}-${ending}`;
    link.addEventListener("click", () => {
      link.href = URL.createObjectURL(new Blob([text()], { type }));
    });
  };
  for (const link of document.querySelectorAll("[data-csv]"))
    offer(link, link.dataset.csv, "text/csv", () => csv(data.tables[link.dataset.csv]));
  for (const link of document.querySelectorAll("[data-findings]"))
    offer(link, link.dataset.findings, "application/json", () => JSON.stringify(data.findings, null, 2));

  let library;
  const unpack = async () => {
    const script = document.createElement("script");
    script.textContent = await gunzip(window.packedPlotly ?? document.getElementById("plotly").textContent);
    document.head.append(script);
  };
  const draw = async (ids) => {
    for (const id of ids) {
      try {
        await (library ??= unpack());
        if (!drawn.has(id)) drawOne(id);
        drawn.add(id);
      } catch (error) {
        document.getElementById(id).textContent =
          `The chart cannot be drawn in this browser (${error.message}). The raw numbers are below.`;
      }
    }
    root.dataset.charts = "drawn"; // all that are near the window
  };
  settings.listen(redraw);
  settings.show();

  const ids = Object.keys(data.figures);
  const near = new IntersectionObserver(
    (entries) => {
      const found = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
      found.forEach((chart) => near.unobserve(chart));
      if (found.length) draw(found.map((chart) => chart.id));
      else root.dataset.charts ??= "drawn";
    },
    { rootMargin: "400px" },
  );
  if (!ids.length) root.dataset.charts = "drawn";
  for (const id of ids) {
    const chart = document.getElementById(id);
    chart.style.minHeight = `${data.figures[id].layout.height}px`; // nothing moves when it is drawn
    near.observe(chart);
  }
  // Whoever prints wants all of them, and a print cannot wait. What is folded has no width to be drawn in.
  const unfolded = (id) => document.getElementById(id).offsetParent !== null;
  setTimeout(() => ids.length && draw(ids.filter(unfolded)), AT_EASE);
})();
