// One label is chosen; every word has the colour of what it contributed to that one.
(() => {
  const box = byId("words"), cells = [...box.querySelectorAll(".w")], chooser = byId("target"), matrix = byId("matrix");
  const shown = 12, strong = 0.25;
  let target = look.start, here = -1, spot = null;
  if (!look.explained.length) return;

  const signed = (value, digits = 3) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`);
  const method = () => document.querySelector("input[name=method]:checked").value;
  const weighed = () => method() === "attention";
  const valuesOf = (which) => (weighed() ? look.attention : look.explained[which][method()]);
  const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
  const kindOf = (value) => (weighed() ? "weight" : value < 0 ? "against" : "for");
  const told = (value) => (weighed() ? `attention weight ${decimal(value)}` : `${signed(value)} nats`);

  function paint(element, value, most) {
    const share = most > 0 ? Math.abs(value ?? 0) / most : 0;
    element.classList.remove("for", "against", "weight", "strong");
    if (share > 0) element.classList.add(kindOf(value));
    element.classList.toggle("strong", share > strong);
    element.style.setProperty("--c", share.toFixed(3));
  }

  function wordsOf(i) {
    const one = look.explained[target], [best] = look.choices[i];
    const lines = [`${look.words[i]}: ${told(valuesOf(target)[i])}`, weighed() ? `word ${i + 1}` : `word ${i + 1}, towards ${one.name}`];
    if (best) lines.push(`its own label: ${look.choices[i].slice(0, 3).map(([name, value]) => `${name} ${decimal(value)}`).join(", ")}`);
    return lines;
  }

  function drawSum() {
    const { label, score, baseline, gap, first } = look.explained[target], from = score === null || baseline === null ? null : score - baseline;
    const probability = score === null ? null : 1 / (1 + Math.exp(-score)), small = make("small", { html: true });
    const sums = {
      integrated: () => `log-odds ${signed(score)} = ${signed(baseline)} without words ${signed(from === null ? null : from - gap)} from words ${signed(gap, 4)} gap`,
      first: () => `log-odds ${signed(score)}; the slopes at this text add up to ${signed(first.reduce((a, b) => a + (b ?? 0), 0))}, which need be no change of anything`,
      attention: () => "how much each word counts in the mean that the labels are read from",
    };
    small.textContent = sums[method()]();
    byId("sum").replaceChildren(...(weighed() ? [] : [`${label}: probability ${decimal(probability)} `]), small);
  }

  function drawStrongest() {
    const values = valuesOf(target), most = largest(values), list = byId("strongest");
    const order = values.map((value, i) => [Math.abs(value ?? 0), i]).filter(([size]) => size > 0).sort((a, b) => b[0] - a[0]).slice(0, shown);
    list.classList.toggle("one", weighed());
    list.replaceChildren(...order.map(([size, i]) => {
      const name = make("span", { html: true, dir: "auto" }, look.words[i], " ", make("small", { html: true }, `${i + 1}`));
      const part = make("b", { html: true, class: kindOf(values[i]), style: `--c: 1; width: ${((weighed() ? 100 : 50) * size) / most}%` });
      return make("li", { html: true }, name, make("i", { html: true }, part), make("em", { html: true }, weighed() ? decimal(values[i]) : signed(values[i])));
    }));
  }

  function drawChoices() {
    const place = look.explained[target].place;
    if (!byId("choices") || place === null) return;
    byId("choices-of").textContent = `In the place of “${look.words[place]}”`;
    byId("choices").replaceChildren(...look.choices[place].map(([name, value]) => make("li", { html: true },
      make("span", { html: true, ...(name === look.explained[target].label ? { class: "given" } : {}) }, name),
      make("i", { html: true }, make("b", { html: true, style: `width: ${100 * (value ?? 0)}%` })), make("em", { html: true }, decimal(value)))));
  }

  function drawMatrix() {
    if (!matrix) return;
    const head = make("tr", { html: true }, make("th", { html: true }), ...look.words.map((word) => make("th", { html: true }, make("span", { html: true, dir: "auto" }, word))));
    const rows = look.explained.map((one, r) => {
      const values = one[method()] ?? one.integrated, most = largest(values);
      return make("tr", { html: true }, make("th", { html: true }, `${look.words[one.place]} `, make("b", { html: true }, one.label)), ...values.map((value, i) => {
        const cell = make("td", { html: true, ...(i === one.place ? { class: "own" } : {}) });
        paint(cell, value, most);
        cell.dataset.at = `${r} ${i}`;
        return cell;
      }));
    });
    matrix.replaceChildren(make("table", { html: true, "aria-hidden": true }, make("thead", { html: true }, head), make("tbody", { html: true }, ...rows)));
  }

  function draw() {
    const values = valuesOf(target), most = largest(values), place = look.explained[target].place;
    cells.forEach((cell, i) => { paint(cell.firstElementChild, values[i], most); cell.classList.toggle("chosen", i === place); });
    byId("both").classList.toggle("one", weighed());
    byId("least").textContent = weighed() ? "0" : `against ${signed(-most, 2)}`;
    byId("greatest").textContent = weighed() ? most.toFixed(2) : `${signed(most, 2)} for`;
    document.querySelectorAll("[data-target]").forEach((button) => button.setAttribute("aria-pressed", Number(button.dataset.target) === target));
    if (chooser) chooser.value = target;
    drawSum(); drawStrongest(); drawChoices();
  }

  function choose(which) {
    if (which < 0) return;
    target = which;
    draw();
  }

  function move(to) {
    cells[here]?.classList.remove("here");
    here = to;
    cells[here]?.classList.add("here");
  }
  const explainedAt = (i) => look.explained.findIndex((one) => one.place === i);
  cells.forEach((cell, i) => {
    cell.removeAttribute("title"); // the script tells more
    cell.addEventListener("pointermove", (event) => showTip(wordsOf(i), event.clientX, event.clientY));
    cell.addEventListener("pointerleave", hideTip);
    cell.addEventListener("click", (event) => { choose(explainedAt(i)); showTip(wordsOf(i), event.clientX, event.clientY); });
  });
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { move(-1); hideTip(); return; }
    const ends = { Home: 0, End: cells.length - 1 }, chosen = event.key === "Enter" || event.key === " ";
    if (!(event.key in steps) && !(event.key in ends) && !chosen) return;
    event.preventDefault();
    if (chosen && here >= 0) choose(explainedAt(here));
    else move(Math.min(Math.max(event.key in ends ? ends[event.key] : here + steps[event.key], 0), cells.length - 1));
    if (here >= 0) tellAt(cells[here], wordsOf(here));
  });
  box.addEventListener("blur", () => { move(-1); hideTip(); });

  function spotAt(r, i) {
    matrix.querySelectorAll(".here").forEach((old) => old.classList.remove("here"));
    spot = [r, i];
    matrix.querySelectorAll("tbody th")[r].classList.add("here");
    matrix.querySelectorAll("thead th")[i + 1].classList.add("here");
    const one = look.explained[r];
    return [`${look.words[i]}: ${signed((one[method()] ?? one.integrated)[i])} nats`, `towards ${one.name}`];
  }
  matrix?.addEventListener("pointermove", (event) => {
    const at = event.target.dataset?.at;
    if (at) showTip(spotAt(...at.split(" ").map(Number)), event.clientX, event.clientY); else hideTip();
  });
  matrix?.addEventListener("pointerleave", hideTip);
  matrix?.addEventListener("click", (event) => { if (event.target.dataset?.at) choose(Number(event.target.dataset.at.split(" ")[0])); });
  const ways = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  matrix?.addEventListener("keydown", (event) => {
    const way = ways[event.key];
    if (event.key === "Escape") { spot = null; hideTip(); return; }
    if (!way) return;
    event.preventDefault();
    const [r, i] = spot ? [spot[0] + way[0], spot[1] + way[1]] : [0, 0];
    const at = [Math.min(Math.max(r, 0), look.explained.length - 1), Math.min(Math.max(i, 0), look.words.length - 1)];
    tellAt(matrix.querySelector(`[data-at="${at[0]} ${at[1]}"]`), spotAt(...at));
  });
  matrix?.addEventListener("blur", hideTip);

  document.querySelectorAll("[data-target]").forEach((button) => button.addEventListener("click", () => choose(Number(button.dataset.target))));
  chooser?.addEventListener("change", () => choose(Number(chooser.value)));
  document.querySelectorAll("input[name=method]").forEach((input) => input.addEventListener("change", () => { draw(); drawMatrix(); }));
  draw(); drawMatrix();
})();
