(() => {
  // Each chart: the past and behind it the forecast, its band, and what came; all by their place in `times`.
  const margin = { top: 8, right: 10, bottom: 24, left: 54 };
  const names = { past: "past", best: "forecast", truth: "came" };

  function draw(holder) {
    const chart = look[Number(holder.dataset.panel)][Number(holder.dataset.chart)], now = chart.past.length;
    const ahead = (values) => (values ? values.map((value, place) => [now + place, value]) : []);
    const lines = { past: chart.past.map((value, place) => [place, value]), truth: ahead(chart.truth), best: ahead(chart.best) };
    const low = ahead(chart.low), high = ahead(chart.high);
    const values = [...Object.values(lines).flat(), ...low, ...high].map(([, value]) => value).filter((value) => value !== null);
    const width = Math.max(holder.clientWidth, 220), height = Number(holder.dataset.height) * (width < 480 ? 0.85 : 1);
    holder.replaceChildren();
    holder.onpointermove = holder.onpointerleave = holder.onkeydown = holder.onblur = null;
    if (!values.length) { holder.append(make("p", { html: true, class: "empty" }, "no number to draw")); return; }
    let least = Math.min(...values), most = Math.max(...values);
    const room = (most - least) * 0.05 || Math.abs(most) * 0.1 || 1;
    least -= room;
    most += room;
    const last = chart.times.length - 1, inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };
    const x = (place) => margin.left + (last ? place / last : 0.5) * inner.width;
    const y = (value) => margin.top + (1 - (value - least) / (most - least)) * inner.height;
    const at = ([place, value]) => `${x(place).toFixed(1)},${y(value).toFixed(1)}`;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    for (const value of ticks(least, most, height > 200 ? 6 : 3)) {
      svg.append(make("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(value), y2: y(value) }));
      svg.append(make("text", { x: margin.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)));
    }
    svg.append(make("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }));
    svg.append(make("line", { class: "now", x1: x(now - 0.5), x2: x(now - 0.5), y1: margin.top, y2: height - margin.bottom }));
    // Times at both ends, and where the forecast begins, as far as there is room.
    let taken = -Infinity;
    const labels = [[0, "start"], [last, "end"], [now, "middle"]].map(([place, anchor]) => {
      const wide = widthOf(chart.times[place], 11.5), left = x(place) - { start: 0, middle: wide / 2, end: wide }[anchor];
      return { place, anchor, left, right: left + wide };
    }).sort((a, b) => a.left - b.left);
    const end = labels.find((label) => label.place === last);
    for (const label of labels) {
      if (label.left < taken + 12 || (label !== end && label.right > end.left - 12)) continue;
      taken = label.right;
      svg.append(make("text", { x: x(label.place), y: height - 6, "text-anchor": label.anchor }, chart.times[label.place]));
    }
    if (low.length) {
      const both = low.map(([place, value], step) => [place, value, high[step][1]]).filter((point) => point[1] !== null && point[2] !== null);
      svg.append(make("polygon", { class: "band", points: [...both.map(([p, l]) => at([p, l])), ...both.reverse().map(([p, , h]) => at([p, h]))].join(" ") }));
    }
    for (const [name, points] of Object.entries(lines)) {
      for (const run of runs(points)) {
        svg.append(run.length > 1 ? make("polyline", { class: `curve ${name}`, points: run.map(at).join(" ") })
          : make("circle", { class: `dot ${name}`, r: 2.5, cx: x(run[0][0]), cy: y(run[0][1]) }));
      }
    }
    const hover = make("g");
    svg.append(hover);
    holder.append(svg);

    function mark(place) {
      const found = Object.entries(lines).map(([name, points]) => [name, points.find((point) => point[0] === place)]).filter(([, point]) => point && point[1] !== null);
      hover.replaceChildren(make("line", { class: "cursor", x1: x(place), x2: x(place), y1: margin.top, y2: height - margin.bottom }));
      for (const [name, point] of found) hover.append(make("circle", { class: `dot ${name}`, r: 4, cx: x(place), cy: y(point[1]) }));
      const told = found.map(([name, point]) => `${names[name]} ${short(point[1])}`);
      const step = place - now;
      if (step >= 0 && low.length && chart.low[step] !== null) told.push(`80 % between ${short(chart.low[step])} and ${short(chart.high[step])}`);
      return [chart.times[place], ...(told.length ? told : ["missing"])];
    }
    const clear = () => { hover.replaceChildren(); hideTip(); };
    let here = now;
    holder.onpointermove = (event) => {
      const share = (event.clientX - holder.getBoundingClientRect().left - margin.left) / inner.width;
      here = Math.max(0, Math.min(last, Math.round(share * last)));
      showTip(mark(here), event.clientX, event.clientY);
    };
    holder.onpointerleave = holder.onblur = clear;
    holder.onkeydown = (event) => {
      const moves = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last };
      if (event.key === "Escape") clear();
      if (!(event.key in moves)) return;
      event.preventDefault();
      here = Math.max(0, Math.min(last, moves[event.key]));
      tellAt(holder, mark(here));
    };
  }

  keepDrawn(() => document.querySelectorAll(".chart").forEach(draw));
})();
