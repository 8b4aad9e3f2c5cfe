"use strict";
(() => {
  // A point is [step, minutes, tokens, value, …]; the chosen axis is the index of its abscissa.
  const data = JSON.parse(document.getElementById("curve-data").textContent);
  const names = { train: "training", valid: "validation", learning_rate: "learning rate", gradient_norm: "norm", tokens_per_second: "a second" };
  const axisNames = ["step", "minutes", [...document.querySelectorAll(".axes span")].at(-1)?.textContent];
  const margin = { top: 8, right: 14, bottom: 26, left: 52 };
  let axis = 0;

  const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
  function short(value) {
    const size = Math.abs(value);
    if (size >= 1e15 || (size > 0 && size < 1e-3)) return value.toExponential(2).replace(/\.?0+e/, "e");
    for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
      if (size >= unit) { const by = letter === "k" ? 1e3 : unit; return trim((value / by).toPrecision(4)) + " " + letter; }
    }
    return trim(value.toPrecision(4));
  }

  function ticks(low, high, wanted) {
    const raw = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
    return found;
  }

  // A few values far above all others (a diverging start, a spike) would flatten the rest: they are cut off at the top.
  function span(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const low = sorted[0], most = sorted[Math.floor((sorted.length - 1) * 0.99)];
    let high = sorted[sorted.length - 1];
    if (high - low > 4 * (most - low) && most > low) high = most;
    if (high > low) return [low, high];
    const room = Math.abs(low) * 0.1 || 1;
    return [low - room, high + room];
  }

  function draw(holder) {
    const shown = holder.dataset.curves.split(" ").map((name) => [name, data[name].filter((p) => p[axis] !== null)]).filter(([, points]) => points.length);
    const width = Math.max(holder.clientWidth, 220), height = Number(holder.dataset.height) * (width < 480 ? 0.8 : 1);
    holder.onpointermove = holder.onpointerleave = null;
    if (!shown.length) { holder.innerHTML = '<p class="empty">not recorded on this axis</p>'; return; }
    const all = shown.flatMap(([, points]) => points);
    const right = Math.max(...all.map((p) => p[axis])), left = Math.min(0, ...all.map((p) => p[axis]));
    let [low, high] = span(all.map((p) => p[3]));
    if ("fromZero" in holder.dataset) low = Math.min(low, 0);
    const room = (high - low) * 0.04;
    if (low < 0 || low > room) low -= room; // a curve near zero stands on it
    high += room;
    const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
    const x = (v) => margin.left + ((v - left) / (right - left || 1)) * inner.width;
    const y = (v) => margin.top + (1 - (Math.min(v, high) - low) / (high - low)) * inner.height;
    const parts = [];
    for (const v of ticks(low, high, height > 200 ? 6 : 3)) {
      parts.push(`<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${y(v)}" y2="${y(v)}"/><text x="${margin.left - 8}" y="${y(v) + 4}" text-anchor="end">${short(v)}</text>`);
    }
    for (const v of ticks(left, right || 1, Math.max(2, Math.floor(inner.width / 95)))) {
      parts.push(`<text x="${x(v)}" y="${height - 6}" text-anchor="middle">${short(v)}</text>`);
    }
    parts.push(`<line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${height - margin.bottom}" y2="${height - margin.bottom}"/>`);
    for (const [name, points] of shown) {
      parts.push(`<polyline class="curve ${name}" points="${points.map((p) => `${x(p[axis]).toFixed(1)},${y(p[3]).toFixed(1)}`).join(" ")}"/>`);
      if (points.length === 1 || (name === "valid" && points.length <= 60)) {
        for (const p of points) parts.push(`<circle class="dot ${name}" r="3.2" cx="${x(p[axis])}" cy="${y(p[3])}"/>`);
      }
    }
    holder.innerHTML = `<svg viewBox="0 0 ${width} ${height}" aria-hidden="true">${parts.join("")}<g class="hover"></g></svg><div class="tip" hidden></div>`;
    const nearest = (points, at) => points.reduce((a, b) => (Math.abs(b[axis] - at) < Math.abs(a[axis] - at) ? b : a));
    holder.onpointermove = (event) => {
      const box = holder.getBoundingClientRect(), at = left + ((event.clientX - box.left - margin.left) / inner.width) * (right - left);
      const near = shown.map(([name, points]) => [name, nearest(points, at)]);
      const middle = near.map(([, p]) => p).reduce((a, b) => (Math.abs(b[axis] - at) < Math.abs(a[axis] - at) ? b : a));
      const dots = near.map(([name, p]) => `<circle class="dot ${name}" r="4" cx="${x(p[axis])}" cy="${y(p[3])}"/>`);
      holder.querySelector(".hover").innerHTML = `<line class="cursor" x1="${x(middle[axis])}" x2="${x(middle[axis])}" y1="${margin.top}" y2="${height - margin.bottom}"/>${dots.join("")}`;
      const lines = near.map(([name, p]) => {
        const more = [p[4] == null ? "" : `perplexity ${short(p[4])}`, p[5] == null ? "" : `${short(p[5])} bits/char.`].filter(Boolean).join(", ");
        return `${names[name]} <b>${short(p[3])}</b>${more ? ` (${more})` : ""}${shown.length > 1 ? ` at ${short(p[axis])}` : ""}`;
      });
      const tip = holder.querySelector(".tip");
      tip.innerHTML = [`${axisNames[axis]} ${short(middle[axis])}`, ...lines].join("<br>");
      tip.hidden = false;
      const place = x(middle[axis]) + (x(middle[axis]) > width / 2 ? -tip.offsetWidth - 12 : 12);
      tip.style.left = `${Math.max(0, Math.min(place, width - tip.offsetWidth))}px`;
    };
    holder.onpointerleave = () => { holder.querySelector(".tip").hidden = true; holder.querySelector(".hover").innerHTML = ""; };
  }

  const charts = [...document.querySelectorAll(".chart")];
  const drawAll = () => charts.forEach(draw);
  document.querySelectorAll("input[name=axis]").forEach((input) => input.addEventListener("change", () => { axis = Number(input.value); drawAll(); }));
  drawAll();
  let lastWidth = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== lastWidth) { lastWidth = document.body.clientWidth; requestAnimationFrame(drawAll); }
  }).observe(document.body);
})();
