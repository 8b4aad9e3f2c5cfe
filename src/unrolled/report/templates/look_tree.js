// The tree of the beam search, one column a step. Children keep the order of their parents and the best hypothesis stays on top: no two edges cross.
(() => {
  if (!byId("tree")) return;
  const box = byId("tree"), dropped = byId("dropped");
  const gap = 30, edge = 12, head = 24, size = { kept: 38, dropped: 21 }, between = 7, longest = 150;
  const nodes = new Map();
  look.tree.forEach((step, i) => step.forEach((node) => nodes.set(node.id, Object.assign(node, { step: i, children: [] }))));
  for (const node of nodes.values()) nodes.get(node.parent)?.children.push(node);
  let here = null;

  const visible = (node) => node && (node.kept || dropped.checked);
  const column = (i) => look.tree[i].filter(visible).sort((a, b) => a.place - b.place);
  const parentOf = (node) => [nodes.get(node.parent)].find(visible);

  const values = (node) => `${decimal(node.score, 2)} · ${decimal(node.log, 2)}`;
  const comparable = (node) => (node.score === null ? -Infinity : node.score);
  const before = (a, b) => b.best - a.best || (a.order ?? 0) - (b.order ?? 0) || b.kept - a.kept || comparable(b) - comparable(a) || 0;
  const pathOf = (node) => { const path = []; for (let at = node; at; at = nodes.get(at.parent)) path.unshift(at); return path; };

  // Places of all shown nodes; returns the columns and the size of the whole.
  function layOut() {
    const columns = [];
    let x = edge, height = 0;
    look.tree.forEach((step) => {
      const shown = step.filter(visible);
      for (const node of shown) node.order = parentOf(node)?.place ?? -1;
      shown.sort(before);
      let y = head, width = 30;
      shown.forEach((node, place) => {
        node.place = place;
        const font = node.best ? [13, 600] : node.kept ? [13] : [11.5];
        node.label = fit(node.symbol, longest, ...font);
        node.height = node.kept ? size.kept : size.dropped;
        const texts = [widthOf(node.label, ...font), node.kept ? widthOf(values(node), 10.5) : 0];
        width = Math.max(width, Math.max(...texts) + 16 + (node.finished ? 16 : 0));
        Object.assign(node, { x, y });
        y += node.height + between;
      });
      for (const node of shown) node.width = width;
      columns.push({ shown, x, width });
      x += width + gap;
      height = Math.max(height, y);
    });
    return { columns, width: x - gap + edge, height: height + edge - between };
  }

  const kindOf = (node) => `${node.kept ? "kept" : "dropped"}${node.best ? " best" : ""}`;

  function drawNode(node) {
    const parts = [make("rect", { x: node.x, y: node.y, width: node.width, height: node.height, rx: 5 })];
    if (node.finished) {
      const x = node.x + node.width - 15;
      parts.push(make("path", { class: "end", d: `M${x} ${node.y + 1}h9a5 5 0 0 1 5 5v${node.height - 12}a5 5 0 0 1 -5 5h-9z` }));
      if (node.rank) parts.push(make("text", { class: "place", x: x + 7, y: node.y + node.height / 2 + 4, "text-anchor": "middle" }, String(node.rank)));
    }
    parts.push(make("text", { class: "symbol", x: node.x + 8, y: node.y + (node.kept ? 16 : 15) }, node.label));
    if (node.kept) parts.push(make("text", { class: "values", x: node.x + 8, y: node.y + 30 }, values(node)));
    return make("g", { class: `node ${kindOf(node)}`, "data-id": node.id }, ...parts);
  }

  function drawEdge(node) {
    const parent = nodes.get(node.parent);
    const [x1, y1, x2, y2] = [parent.x + parent.width, parent.y + parent.height / 2, node.x, node.y + node.height / 2], middle = (x1 + x2) / 2;
    return make("path", { class: `edge ${kindOf(node)}`, "data-id": node.id, d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}` });
  }

  function draw() {
    const { columns, width, height } = layOut(), shown = columns.flatMap((column) => column.shown);
    const rank = (node) => node.best * 2 + node.kept;
    const edges = shown.filter(parentOf).sort((a, b) => rank(a) - rank(b)).map(drawEdge);
    const steps = columns.map(({ x, width }, i) => make("text", { x: x + width / 2, y: 16, "text-anchor": "middle" }, String(i + 1)));
    box.replaceChildren(make("svg", { width, height, "aria-hidden": true }, ...steps, ...edges, ...shown.map(drawNode)));
    hideTip();
    here = null;
  }

  function wordsOf(node) {
    const facts = [`step ${node.step + 1}`, node.kept ? "kept" : "dropped", node.finished && "finished", node.rank && `number ${node.rank} of the list`];
    const prefix = pathOf(node).map((at) => at.symbol).join(" ");
    return [prefix, facts.filter(Boolean).join(", "), `score ${decimal(node.score)}, log-probability ${decimal(node.log)}`];
  }

  function mark(node) {
    here = node;
    const path = new Set(node ? pathOf(node).map((at) => String(at.id)) : []);
    for (const part of box.querySelectorAll("[data-id]")) {
      part.classList.toggle("path", path.has(part.dataset.id));
      part.classList.toggle("here", part.dataset.id === String(node?.id));
    }
  }
  function leave() { mark(null); hideTip(); }

  // A finger does not move over the page: it clicks.
  const point = (event) => {
    const found = event.target.closest?.("g.node");
    if (!found) { if (here) leave(); return; }
    const node = nodes.get(Number(found.dataset.id));
    if (node !== here) mark(node);
    showTip(wordsOf(node), event.clientX, event.clientY);
  };
  for (const kind of ["pointermove", "click"]) box.addEventListener(kind, point);
  box.addEventListener("pointerleave", leave);
  box.addEventListener("blur", leave);

  const first = () => look.tree.map((_, i) => column(i)[0]).find(Boolean);
  const lastOfBest = () => [...nodes.values()].filter((node) => node.best && visible(node)).pop();
  const moves = {
    ArrowLeft: parentOf,
    ArrowRight: (node) => node.children.filter(visible).sort((a, b) => a.place - b.place)[0],
    ArrowUp: (node) => column(node.step)[node.place - 1],
    ArrowDown: (node) => column(node.step)[node.place + 1],
    Home: first,
    End: (node) => lastOfBest() ?? node,
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { leave(); return; }
    if (!moves[event.key]) return;
    event.preventDefault();
    const from = here ?? first(), stay = !here && event.key !== "End";
    if (!from) return;
    const node = stay ? from : moves[event.key](from) ?? from;
    mark(node);
    tellAt(box.querySelector(`g.node[data-id="${node.id}"]`), wordsOf(node));
  });
  dropped.addEventListener("change", draw);
  keepDrawn(draw);
})();
