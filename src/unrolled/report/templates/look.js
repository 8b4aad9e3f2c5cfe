"use strict";
// What maps and tree share: the data of the page, elements made without HTML (no text can become a tag), one tip, one voice.
const look = JSON.parse(document.getElementById("look-data").textContent);
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...inside) {
  const made = attributes.html ? document.createElement(tag) : document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (name !== "html") made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

const ruler = document.createElement("canvas").getContext("2d");
function widthOf(text, size, weight = 400) {
  ruler.font = `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

// The longest beginning of a text (whole letters, not halves of them) that fits.
function fit(text, most, size, weight) {
  if (widthOf(text, size, weight) <= most) return text;
  const letters = [...text];
  while (letters.length > 1 && widthOf(letters.join("") + "…", size, weight) > most) letters.pop();
  return letters.join("") + "…";
}

const decimal = (value, digits = 3) => (value === null ? "–" : value.toFixed(digits));

// Lines of text beside the pointer, gone when anything scrolls; or below an element that a key led to, told aloud and moving with it.
let anchor = null;
function place(x, y) {
  const tip = byId("tip"), left = x + 14 + tip.offsetWidth < innerWidth ? x + 14 : x - tip.offsetWidth - 14;
  tip.style.left = `${Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 14 + tip.offsetHeight < innerHeight ? y + 14 : Math.max(4, y - tip.offsetHeight - 14)}px`;
}
function placeAtAnchor() {
  const { left, bottom } = anchor.getBoundingClientRect();
  place(left, bottom - 6);
}
function showTip(lines, x, y) {
  anchor = null;
  byId("tip").textContent = lines.join("\n");
  byId("tip").hidden = false;
  place(x, y);
}
function tellAt(element, lines) {
  showTip(lines, 0, 0);
  byId("told").textContent = lines.join(", ");
  anchor = element;
  element.scrollIntoView({ block: "nearest", inline: "nearest" });
  placeAtAnchor();
}
function hideTip() { anchor = null; byId("tip").hidden = true; }
addEventListener("scroll", () => (anchor ? placeAtAnchor() : hideTip()), { capture: true, passive: true });

// Draw now, when the width of the page changes, and when its colours do.
function keepDrawn(draw) {
  draw();
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (document.body.clientWidth !== width) { width = document.body.clientWidth; requestAnimationFrame(draw); }
  }).observe(document.body);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);
}
