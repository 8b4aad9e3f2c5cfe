(() => {
  // Each chart: the past and behind it the forecast, its band, and what came; all by their place in `times`.
  const names = { past: "past", best: "forecast", truth: "came" };

  function draw(holder) {
    const chart = look[Number(holder.dataset.panel)][Number(holder.dataset.chart)], now = chart.past.length;
    const ahead = (values) => (values ? values.map((value, place) => [now + place, value]) : []);
    const lines = { past: chart.past.map((value, place) => [place, value]), truth: ahead(chart.truth), best: ahead(chart.best) };
    const low = chart.low ?? [], high = chart.high ?? [];
    const values = [...Object.values(lines).flat().map(([, value]) => value), ...low, ...high].filter((value) => value !== null);
    holder.replaceChildren();
    holder.onpointermove = holder.onpointerleave = holder.onkeydown = holder.onblur = null;
    if (!values.length) { holder.append(make("p", { html: true, class: "empty" }, "no number to draw")); return; }
    const drawn = frame(holder, chart.times, now), { svg, x, inner, height } = drawn;
    let least = values.reduce((a, b) => Math.min(a, b)), most = values.reduce((a, b) => Math.max(a, b));
    const room = (most - least) * 0.05 || Math.abs(most) * 0.1 || 1;
    least -= room;
    most += room;
    const y = (value) => margin.top + (1 - (value - least) / (most - least)) * inner.height;
    const point = (place, value) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`;
    drawGrid(drawn, ticks(least, most, height > 200 ? 6 : 3), y, short);
    if (low.length) svg.append(bandBetween("band", low, high, now, point));
    for (const [name, points] of Object.entries(lines)) {
      for (const run of runs(points)) {
        svg.append(run.length > 1 ? make("polyline", { class: `curve ${name}`, points: run.map(([place, value]) => point(place, value)).join(" ") })
          : make("circle", { class: `dot ${name}`, r: 2.5, cx: x(run[0][0]), cy: y(run[0][1]) }));
      }
    }
    const hover = make("g");
    svg.append(hover);
    holder.append(svg);
    listen(holder, drawn, now, hover, (place) => {
      const found = Object.entries(lines).map(([name, points]) => [name, points.find((one) => one[0] === place)]).filter(([, one]) => one && one[1] !== null);
      for (const [name, one] of found) hover.append(make("circle", { class: `dot ${name}`, r: 4, cx: x(place), cy: y(one[1]) }));
      const told = found.map(([name, one]) => `${names[name]} ${short(one[1])}`);
      const step = place - now;
      if (step >= 0 && low.length && low[step] !== null) told.push(`80 % between ${short(low[step])} and ${short(high[step])}`);
      return [chart.times[place], ...(told.length ? told : ["missing"])];
    });
  }

  keepDrawn(() => document.querySelectorAll(".chart").forEach(draw));
})();
