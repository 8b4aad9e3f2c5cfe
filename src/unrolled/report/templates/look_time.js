// Charts over the places of `times`: what they are drawn on, bands, and a pointer that moves from point to point.
const margin = { top: 8, right: 10, bottom: 24, left: 54 };

// What every chart is drawn on: its size, where a point lies, and the times below it.
function frame(holder, times, now) {
  const width = Math.max(holder.clientWidth, 220), height = Number(holder.dataset.height) * (width < 480 ? 0.85 : 1);
  const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom }, last = times.length - 1;
  const x = (place) => margin.left + (last ? place / last : 0.5) * inner.width;
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  svg.append(make("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }));
  if (now !== null && now <= last) svg.append(make("line", { class: "now", x1: x(now - 0.5), x2: x(now - 0.5), y1: margin.top, y2: height - margin.bottom }));
  // Times at both ends, and where the future begins, as far as there is room.
  let taken = -Infinity;
  const marks = [[0, "start"], ...(last ? [[last, "end"]] : []), ...(now !== null && now < last ? [[now, "middle"]] : [])];
  const labels = marks.map(([place, anchor]) => {
    const wide = widthOf(times[place], 11.5), left = x(place) - { start: 0, middle: wide / 2, end: wide }[anchor];
    return { place, anchor, left, right: left + wide };
  }).sort((a, b) => a.left - b.left);
  const end = labels.find((label) => label.place === last);
  for (const label of labels) {
    if (label.left < taken + 12 || (label !== end && end && label.right > end.left - 12)) continue;
    taken = label.right;
    svg.append(make("text", { x: x(label.place), y: height - 6, "text-anchor": label.anchor }, times[label.place]));
  }
  return { svg, x, last, inner, width, height };
}

// Pointer and keys move from point to point; `mark` draws what is found there and says it.
function listen(holder, { x, last, inner, height }, begin, hover, mark) {
  const at = (place) => {
    hover.replaceChildren(make("line", { class: "cursor", x1: x(place), x2: x(place), y1: margin.top, y2: height - margin.bottom }));
    return mark(place);
  };
  const clear = () => { hover.replaceChildren(); hideTip(); };
  let here = begin;
  holder.onpointermove = (event) => {
    const share = (event.clientX - holder.getBoundingClientRect().left - margin.left) / inner.width;
    here = Math.max(0, Math.min(last, Math.round(share * last)));
    showTip(at(here), event.clientX, event.clientY);
  };
  holder.onpointerleave = holder.onblur = clear;
  holder.onkeydown = (event) => {
    const moves = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: last };
    if (event.key === "Escape") clear();
    if (!(event.key in moves)) return;
    event.preventDefault();
    here = Math.max(0, Math.min(last, moves[event.key]));
    tellAt(holder, at(here));
  };
}

// What lies between two rows of values, of which the first is at the place `begin`; `point` gives its text for a place and a value.
function bandBetween(css, low, high, begin, point) {
  const both = low.map((value, place) => [begin + place, value, high[place]]).filter((one) => one[1] !== null && one[2] !== null);
  const corners = [...both.map(([place, least]) => point(place, least)), ...both.reverse().map(([place, , most]) => point(place, most))];
  return make("polygon", { class: css, points: corners.join(" ") });
}

// Lines across at round values, each with its label.
function drawGrid({ svg, width }, values, y, label) {
  for (const value of values) {
    svg.append(make("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(value), y2: y(value) }));
    svg.append(make("text", { x: margin.left - 8, y: y(value) + 4, "text-anchor": "end" }, label(value)));
  }
}
