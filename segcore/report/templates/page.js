"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// The slider: photo left of it, prediction right of it.
for (const slider of all(".slider")) {
  const place = () => slider.closest(".stage").style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", place);
  place(); // browsers keep a slider's value over a reload
}
for (const button of all(".views button")) {
  button.addEventListener("click", () => {
    const card = button.closest(".card");
    card.querySelector(".stage").dataset.view = button.dataset.view;
    for (const other of all(".views button", card)) other.setAttribute("aria-pressed", String(other === button));
  });
}

// Tables: a click on a heading sorts, a second one turns the order round; rows without a number stay last.
const collator = new Intl.Collator("en", { numeric: true });
for (const table of all("table.sortable")) {
  const body = table.tBodies[0];
  all("thead th", table).forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    if (body.rows[0]?.cells[column]?.classList.contains("num")) heading.classList.add("num");
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of all("thead th", table)) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const compare = (a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        if (x.dataset.value === undefined || y.dataset.value === undefined) {
          return (up ? 1 : -1) * collator.compare(x.textContent, y.textContent);
        }
        const [m, n] = [Number(x.dataset.value), Number(y.dataset.value)];
        if (Number.isNaN(m) || Number.isNaN(n)) return Number.isNaN(m) - Number.isNaN(n);
        return up ? m - n : n - m;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
const filter = document.getElementById("filter");
const filterRows = () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...document.getElementById(filter.dataset.for).tBodies[0].rows];
  for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
};
filter.addEventListener("input", filterRows);
filterRows();

// The number under the pointer.
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest?.('.drawing [role="graphics-symbol"]:not([aria-roledescription="axis"], [aria-roledescription="legend"])');
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.getAttribute("aria-label");
  const x = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const y = event.clientY + 18 + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 12 : event.clientY + 18;
  tip.style.left = `${Math.max(8, x)}px`;
  tip.style.top = `${y}px`;
});

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
