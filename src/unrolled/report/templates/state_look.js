(() => {
  // A chart: lines with their bands over the places of `times`, one of them perhaps ahead of what was seen; or the chances of states, stacked.
  const colours = 8;

  function drawLines(holder) {
    const chart = look[Number(holder.dataset.chart)], levels = chart.levels;
    const layers = chart.layers.map((layer) => ({ low: null, high: null, begin: 0, step: false, ...layer }));
    const told = (value) => (levels ? levels[Math.round(value)] ?? short(value) : short(value));
    const values = layers.flatMap((layer) => [...layer.best, ...(layer.low ?? []), ...(layer.high ?? [])]).filter((value) => value !== null);
    holder.replaceChildren();
    if (!values.length) { holder.append(make("p", { html: true, class: "empty" }, "no number to draw")); return; }
    const drawn = frame(holder, chart.times, chart.now), { svg, x, inner, height } = drawn;
    let least = chart.floor ?? values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
    const room = (most - least) * 0.05 || Math.abs(most) * 0.1 || 1;
    least -= room;
    most += room;
    const y = (value) => margin.top + (1 - (Math.max(value, least) - least) / (most - least)) * inner.height;
    const point = (place, value) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`;
    const lines = levels ? levels.map((_, level) => level).filter((level) => level % Math.ceil(levels.length / 12) === 0) : ticks(least, most, height > 200 ? 6 : 3);
    // As many digits as tell two ticks apart.
    const digits = levels || lines.length < 2 ? 4 : Math.ceil(Math.log10(Math.max(Math.abs(lines[0]), Math.abs(lines.at(-1))) / (lines[1] - lines[0]))) + 1;
    const shown = (value) => (digits > 4 && Math.abs(value) < 1e6 ? trim(value.toPrecision(digits)) : short(value));
    drawGrid(drawn, lines, y, (value) => (levels ? fit(levels[value], margin.left - 12, 11.5) : shown(value)));
    for (const { css, best, low, high, begin, step } of layers) {
      if (low) svg.append(bandBetween(`band ${css}`, low, high, begin, point));
      for (const run of runs(best.map((value, place) => [begin + place, value]))) {
        const corners = step ? run.flatMap(([p, value]) => [[Math.max(p - 0.5, 0), value], [Math.min(p + 0.5, drawn.last), value]]) : run;
        const single = levels && css === "past" ? run : corners.length > 1 ? [] : run;
        if (single.length) for (const [p, value] of single) svg.append(make("circle", { class: `dot ${css}`, r: 2.2, cx: x(p), cy: y(value) }));
        else svg.append(make("polyline", { class: `curve ${css}`, points: corners.map(([p, value]) => point(p, value)).join(" ") }));
      }
    }
    const hover = make("g");
    svg.append(hover);
    holder.append(svg);
    listen(holder, drawn, chart.now ?? drawn.last, hover, (place) => {
      const said = [chart.times[place]];
      for (const { name, css, best, low, high, begin } of layers) {
        const value = best[place - begin] ?? null;
        if (value === null) continue;
        hover.append(make("circle", { class: `dot ${css}`, r: 4, cx: x(place), cy: y(value) }));
        const band = low && low[place - begin] !== null ? ` (${+(chart.level * 100).toPrecision(4)} % between ${short(low[place - begin])} and ${short(high[place - begin])})` : "";
        said.push(`${name} ${told(value)}${band}`);
      }
      return said.length > 1 ? said : [...said, "missing"];
    });
  }

  function drawStates(holder) {
    const { times, now, path, chances } = look[Number(holder.dataset.states)];
    holder.replaceChildren();
    const drawn = frame(holder, times, now), { svg, x, last, inner, width, height } = drawn, ribbon = 10, top = margin.top + ribbon + 4;
    const y = (share) => top + (1 - share) * (inner.height - ribbon - 4), edge = (place) => Math.max(margin.left, Math.min(width - margin.right, x(place)));
    for (const share of [0, 0.5, 1]) svg.append(make("text", { x: margin.left - 8, y: y(share) + 4, "text-anchor": "end" }, String(share)));
    let below = new Array(times.length).fill(0);
    chances.forEach((row, state) => {
      const above = row.map((value, place) => below[place] + (value ?? 0)), corners = (heights) => heights.flatMap((share, place) => [[edge(place - 0.5), y(share)], [edge(place + 0.5), y(share)]]);
      const points = [...corners(above), ...corners(below).reverse()].map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`);
      svg.append(make("polygon", { class: `area s${state % colours}`, points: points.join(" ") }));
      below = above;
    });
    if (now <= last) svg.append(make("line", { class: "now", x1: x(now - 0.5), x2: x(now - 0.5), y1: margin.top, y2: height - margin.bottom }));
    for (let from = 0, place = 1; place <= path.length; place++) {
      if (place < path.length && path[place] === path[from]) continue;
      svg.append(make("rect", { class: `area s${(path[from] - 1) % colours}`, x: edge(from - 0.5), y: margin.top, width: Math.max(edge(place - 0.5) - edge(from - 0.5), 0.5), height: ribbon }));
      from = place;
    }
    const hover = make("g");
    svg.append(hover);
    holder.append(svg);
    listen(holder, drawn, Math.min(now, last), hover, (place) => {
      const likely = chances.map((row, state) => [row[place], state + 1]).filter(([share]) => share !== null && share >= 0.0005).sort((a, b) => b[0] - a[0]).slice(0, 6);
      const best = place < path.length ? [`likeliest sequence: state ${path[place]}`] : ["expected"];
      return [times[place], ...best, ...likely.map(([share, state]) => `state ${state}: ${(100 * share).toFixed(1)} %`)];
    });
  }

  keepDrawn(() => {
    document.querySelectorAll("[data-chart]").forEach(drawLines);
    document.querySelectorAll("[data-states]").forEach(drawStates);
  });
})();
