"use strict";
(() => {
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // One box shows the value of the mark that is pointed at or focused.
  const tip = document.getElementById("tip");
  const show = (mark) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const box = mark.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = box.left + box.width / 2 - size.width / 2;
    const above = box.top - size.height - 8;
    tip.style.left = Math.max(8, Math.min(left, root.clientWidth - size.width - 8)) + "px";
    tip.style.top = (above > 8 ? above : box.bottom + 8) + "px";
  };
  const hide = () => { tip.hidden = true; };
  const markOf = (event) => (event.target instanceof Element ? event.target.closest(".mark") : null);
  document.addEventListener("pointerover", (event) => {
    const mark = markOf(event);
    if (mark) show(mark); else hide();
  });
  document.addEventListener("pointerdown", (event) => {
    const mark = markOf(event);
    if (mark) show(mark); else hide();
  });
  document.addEventListener("focusin", (event) => {
    const mark = markOf(event);
    if (mark) show(mark); else hide();
  });
  document.addEventListener("scroll", hide, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // A click on a heading sorts by its column, a second one the other way; empty cells stay last.
  const key = (row, column) => {
    const cell = row.cells[column];
    if ("v" in cell.dataset) return Number(cell.dataset.v);
    return cell.querySelector(".none") ? null : cell.textContent.trim();
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number"
    ? a - b
    : String(a).localeCompare(String(b), "en", { numeric: true }));
  const sort = (head) => {
    const table = head.closest("table");
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => ({ row, key: key(row, head.cellIndex) }));
    rows.sort((a, b) => {
      if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
      return sign * compare(a.key, b.key);
    });
    body.append(...rows.map((entry) => entry.row));
  };
  for (const head of document.querySelectorAll("th")) {
    head.querySelector("button").addEventListener("click", () => sort(head));
  }
})();
