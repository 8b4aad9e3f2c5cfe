// Attention maps. A head is a flat list of weights in thousandths, row by row; -1 is masked. Of several heads the first is the mean.
(() => {
  if (!byId("map")) return;
  const box = byId("map"), chooser = byId("layer"), small = byId("heads"), shared = byId("shared");
  const labelSize = 12, longest = 120;
  let head = 0, at = null, lit = [];

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const stops = [0, 1, 2, 3].map((i) => style.getPropertyValue(`--heat-${i}`).trim().match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16)));
    return (share) => {
      const place = Math.min(Math.max(share, 0), 1) * 3, low = Math.min(Math.floor(place), 2), rest = place - low;
      return stops[low].map((value, i) => value + (stops[low + 1][i] - value) * rest);
    };
  }

  // One pixel a weight; the browser enlarges it. What is masked stays clear.
  function paint(canvas, values, width, most, colour) {
    canvas.width = width; canvas.height = values.length / width;
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    values.forEach((value, i) => { if (value >= 0) image.data.set([...colour(value / most), 255], 4 * i); });
    context.putImageData(image, 0, 0);
  }

  const layer = () => look.attention[chooser ? Number(chooser.value) : 0];
  const nameOf = (i) => (i === 0 ? "mean" : `head ${i}`);

  const largest = (values) => values.reduce((a, b) => Math.max(a, b), 1);
  // Each map fills its own scale, else a mean of sharp heads is pale; on one scale heads can be compared.
  const mostOf = (i) => (shared?.checked ? Math.max(...layer().heads.map(largest)) : largest(layer().heads[i]));

  function drawScale(colour) {
    paint(byId("scale"), Array.from({ length: 96 }, (_, i) => i), 96, 95, colour);
    byId("most").textContent = (mostOf(head) / 1000).toFixed(2);
  }

  function drawSmall(colour) {
    const { heads, rows, columns } = layer();
    const unit = Math.min(96 / columns.length, 96 / rows.length);
    small.replaceChildren(...(heads.length < 2 ? [] : heads).map((values, i) => {
      const canvas = make("canvas", { html: true });
      paint(canvas, values, columns.length, mostOf(i), colour);
      canvas.style.cssText = `width: ${Math.max(24, unit * columns.length)}px; height: ${Math.max(24, unit * rows.length)}px; image-rendering: ${unit >= 2 ? "pixelated" : "auto"}`;
      const button = make("button", { html: true, type: "button", role: "radio", "aria-checked": i === head, tabindex: i === head ? 0 : -1 }, canvas, make("span", { html: true }, `${nameOf(i)} · ${(largest(values) / 1000).toFixed(2)}`));
      button.addEventListener("click", () => choose(i));
      canvas.addEventListener("pointermove", (event) => showTip(wordsOf(i, ...cellAt(canvas, event)), event.clientX, event.clientY));
      canvas.addEventListener("pointerleave", hideTip);
      return button;
    }));
  }

  function labels(cell) {
    const { rows, columns } = layer();
    const widest = (symbols) => Math.min(longest, Math.max(...symbols.map((symbol) => widthOf(symbol, labelSize, 700))));
    const left = widest(rows) + 14, wide = widest(columns), flat = wide <= cell - 4, steep = cell < 22;
    const height = flat ? 24 : steep ? wide + 12 : wide * 0.71 + 18, over = flat || steep ? 0 : wide * 0.71;
    const top = make("svg", { class: "top", width: columns.length * cell + over, height, "aria-hidden": true }, ...columns.map((symbol, j) => {
      const x = (j + 0.5) * cell, y = height - 6;
      const place = flat ? { x, y, "text-anchor": "middle" } : steep ? { transform: `translate(${x + 4} ${y}) rotate(-90)` } : { transform: `translate(${x + 2} ${y}) rotate(-45)` };
      return make("text", place, fit(symbol, longest, labelSize));
    }));
    const side = make("svg", { class: "left", width: left, height: rows.length * cell, "aria-hidden": true }, ...rows.map((symbol, i) =>
      make("text", { x: left - 7, y: (i + 0.5) * cell + 4, "text-anchor": "end" }, fit(symbol, longest, labelSize))));
    return { top, side, left, height };
  }

  function drawLarge(colour) {
    const { heads, rows, columns } = layer();
    const room = box.parentElement.clientWidth - Math.min(longest, Math.max(...rows.map((symbol) => widthOf(symbol, labelSize, 700)))) - 28;
    const cell = Math.max(13, Math.min(44, Math.floor(room / columns.length), Math.max(15, Math.floor(600 / rows.length))));
    const { top, side, left, height } = labels(cell);
    const canvas = make("canvas", { html: true, "aria-hidden": true }), cursor = make("div", { html: true, hidden: "" });
    paint(canvas, heads[head], columns.length, mostOf(head), colour);
    canvas.style.cssText = `width: ${cell * columns.length}px; height: ${cell * rows.length}px`;
    cursor.style.cssText = `width: ${cell}px; height: ${cell}px; scroll-margin: ${height + 4}px 8px 8px ${left + 4}px`;
    const cells = make("div", { html: true, class: `cells${cell >= 14 ? " ruled" : ""}`, style: `--cell: ${cell}px; width: ${cell * columns.length}px` }, canvas, cursor);
    const point = (event) => { at = cellAt(canvas, event); mark(); showTip(wordsOf(head, ...at), event.clientX, event.clientY); };
    for (const kind of ["pointermove", "click"]) cells.addEventListener(kind, point); // a finger clicks only
    cells.addEventListener("pointerleave", leave);
    box.replaceChildren(make("div", { html: true, class: "grid-of", style: `grid-template-columns: ${left}px auto` }, make("div", { html: true, class: "corner" }), top, side, cells));
  }

  function cellAt(canvas, event) {
    const { left, top, width, height } = canvas.getBoundingClientRect();
    const place = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    return [place((event.clientY - top) / height, canvas.height), place((event.clientX - left) / width, canvas.width)];
  }

  function wordsOf(which, i, j) {
    const { heads, rows, columns } = layer(), value = heads[which][i * columns.length + j];
    const weight = value < 0 ? "masked" : (value / 1000).toFixed(3);
    return [`${rows[i]} attends to ${columns[j]}: ${weight}`, `row ${i + 1}, column ${j + 1}${heads.length > 1 ? `, ${nameOf(which)}` : ""}`];
  }

  function mark() {
    const cursor = box.querySelector(".cells div");
    for (const text of lit) text.classList.remove("here");
    lit = at ? [box.querySelectorAll(".left text")[at[0]], box.querySelectorAll(".top text")[at[1]]] : [];
    for (const text of lit) text.classList.add("here");
    cursor.hidden = !at;
    if (at) { cursor.style.top = `${at[0] * cursor.offsetHeight}px`; cursor.style.left = `${at[1] * cursor.offsetWidth}px`; }
  }
  function leave() { at = null; mark(); hideTip(); }

  function choose(which) {
    head = which;
    draw();
    small.children[which]?.focus();
  }

  function draw() {
    const { heads } = layer(), colour = colours();
    at = null; lit = []; hideTip();
    head = Math.min(head, Math.max(0, heads.length - 1));
    if (heads.length) { drawScale(colour); drawSmall(colour); drawLarge(colour); return; }
    small.replaceChildren();
    box.replaceChildren(make("p", { html: true, class: "empty" }, "There are no weights of this layer."));
  }

  const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  box.addEventListener("keydown", (event) => {
    const { heads, rows, columns } = layer();
    if (event.key === "Escape") { if (heads.length) leave(); return; }
    const ends = { Home: [at?.[0] ?? 0, 0], End: [at?.[0] ?? 0, columns.length - 1] };
    const wanted = arrows[event.key] ? (at ? [at[0] + arrows[event.key][0], at[1] + arrows[event.key][1]] : [0, 0]) : ends[event.key];
    if (!wanted || !heads.length) return;
    event.preventDefault();
    at = [Math.min(Math.max(wanted[0], 0), rows.length - 1), Math.min(Math.max(wanted[1], 0), columns.length - 1)];
    mark();
    tellAt(box.querySelector(".cells div"), wordsOf(head, ...at));
  });
  box.addEventListener("blur", () => { if (at) leave(); });
  small.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key], count = small.children.length;
    if (step) { event.preventDefault(); choose((head + step + count) % count); }
  });
  for (const control of [chooser, shared]) control?.addEventListener("change", draw);
  keepDrawn(draw);
})();
