"use strict";
document.documentElement.classList.add("scripted");

// tables: a button in each heading; numbers sort as numbers, what is missing comes last
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...sorted([...body.rows], column, up));
    });
  });
}

function sorted(rows, column, up) {
  const key = (row) => row.cells[column].dataset.v;
  const numeric = rows.every((row) => key(row) === "" || !isNaN(key(row)));
  const order = numeric ? (a, b) => a - b : (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  return rows.sort((a, b) => (key(a) === "") - (key(b) === "") || (up ? 1 : -1) * order(key(a), key(b)));
}

// examples: the rows that hold every word typed
for (const table of document.querySelectorAll("table.filtered")) {
  const label = document.createElement("label"), field = document.createElement("input"), count = document.createElement("output");
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => ` ${[...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()} `);
  field.type = "search";
  field.placeholder = "permuted";
  label.append("Show rows with ", field, " ", count);
  table.parentNode.before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row, i) => (row.hidden = !words.every((word) => texts[i].includes(` ${word}`))));
    count.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}` : "";
  });
}

// downloads: the compressed bytes are in the link, and it works without scripts; with them the file is plain CSV
if (typeof DecompressionStream === "function") {
  for (const link of document.querySelectorAll("a.download")) {
    const packed = link.href;
    link.download = link.textContent = link.download.replace(/\.gz$/, "");
    link.addEventListener("click", async (event) => {
      if (link.href !== packed) return;
      event.preventDefault();
      const bytes = Uint8Array.from(atob(packed.slice(packed.indexOf(",") + 1)), (c) => c.charCodeAt(0));
      const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      link.href = URL.createObjectURL(new Blob([await new Response(plain).blob()], { type: "text/csv" }));
      link.click();
    });
  }
}

// figures: the nearest point tells what it is; with the keyboard, one point after the other
const tip = document.getElementById("tip"), ring = document.getElementById("ring");
const REACH = 28;

function place(point) {
  const box = point.element.getBoundingClientRect(), size = Math.max(14, Math.min(26, Math.max(box.width, box.height) + 8));
  const x = box.left + box.width / 2, y = Math.min(box.top + box.height / 2, box.top + 60);
  tip.textContent = point.text;
  tip.hidden = ring.hidden = false;
  ring.style.cssText = `width:${size}px;height:${size}px;left:${x - size / 2 + scrollX}px;top:${y - size / 2 + scrollY}px`;
  const left = Math.max(4, Math.min(x - tip.offsetWidth / 2, document.documentElement.clientWidth - tip.offsetWidth - 4));
  const above = y - size / 2 - tip.offsetHeight - 6, top = above > 4 ? above : y + size / 2 + 6;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${top + scrollY}px`;
}

function leave() {
  tip.hidden = ring.hidden = true;
}

for (const drawing of document.querySelectorAll(".drawing")) {
  const points = [...drawing.querySelectorAll("title")].map((title) => {
    const element = title.parentNode;
    element.classList.add("point");
    title.remove(); // the browser's own tip would be a second one
    return { element, text: title.textContent };
  });
  if (!points.length) continue;
  let at = -1;
  const near = (event) => {
    let least = REACH, nearest = -1;
    points.forEach(({ element }, i) => {
      const box = element.getBoundingClientRect();
      const dx = Math.max(box.left - event.clientX, 0, event.clientX - box.right);
      const dy = Math.max(box.top - event.clientY, 0, event.clientY - box.bottom);
      const away = Math.hypot(dx, dy);
      if (away < least) [least, nearest] = [away, i];
    });
    if (nearest < 0) return leave();
    at = nearest;
    place(points[at]);
  };
  drawing.addEventListener("pointermove", near);
  drawing.addEventListener("pointerdown", near);
  drawing.addEventListener("pointerleave", leave);
  drawing.addEventListener("scroll", leave);
  drawing.addEventListener("blur", leave);
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") leave();
    if (!step) return;
    event.preventDefault();
    at = (at + step + points.length) % points.length;
    points[at].element.scrollIntoView({ block: "nearest", inline: "nearest" });
    place(points[at]);
  });
}
addEventListener("keydown", (event) => event.key === "Escape" && leave());

// on paper settings and provenance stand open, and are as they were afterwards
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("#settings details:not([open]), #provenance details:not([open])")];
  opened.forEach((details) => (details.open = true));
});
addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
