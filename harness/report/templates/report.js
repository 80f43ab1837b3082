"use strict";
// Filters and order of the table of verdicts.  Their state stands in the address as `#?verdict=...&q=...`, so that what
// one person sees can be sent to another; any other hash is a place in the page.
const table = document.getElementById("overview");
const form = document.querySelector("form.controls");

if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headers = [...table.tHead.rows[0].cells];
  const tiles = [...document.querySelectorAll(".tile")];
  const search = document.getElementById("search");
  const severity = document.getElementById("severity");
  const rule = document.getElementById("rule");
  const nothing = document.getElementById("nothing");
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const severities = ["error", "warning", "note"];
  const all = table.closest("details");
  const firstCount = 4;  // the column of errors; warnings and notes follow
  const usual = { column: -1, down: false };  // that of the page: the worst loss first, the recommended one first in it
  let sorted = usual;

  const keyOf = (header) => header.textContent.trim().toLowerCase().replace(/ /g, "-");
  const keys = headers.map(keyOf);

  function value(row, column) {
    const cell = row.cells[column];
    if (headers[column].dataset.kind === "text") return cell.textContent.trim();
    return number(cell);
  }

  const number = (cell) => Number(cell.dataset.sort ?? (/^\d+$/.test(cell.textContent.trim()) ? cell.textContent : NaN));
  const loss = (row) => row.dataset.loss ?? row.cells[0].textContent;  // among many, a row is all that there is of a loss
  const sections = () => [...document.querySelectorAll("section.loss")];
  const verdict = (row) => row.dataset.verdict ?? row.cells[2].textContent;
  const losses = new Set(rows.map(loss)).size;

  // What is unknown stands at the end in both directions.
  function compare(a, b) {
    const [x, y] = [value(a, sorted.column), value(b, sorted.column)];
    if (typeof x === "string") return (sorted.down ? -1 : 1) * x.localeCompare(y, "en", { numeric: true });
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return sorted.down ? y - x : x - y;
  }

  function order() {
    body.append(...(sorted.column < 0 ? rows : [...rows].sort(compare)));
    headers.forEach((header, column) => {
      if (column === sorted.column) header.ariaSort = sorted.down ? "descending" : "ascending";
      else header.removeAttribute("aria-sort");
    });
  }

  const pressed = () => tiles.filter((tile) => tile.ariaPressed === "true").map((tile) => tile.dataset.verdict);

  function matches(row, verdicts, words) {
    return (
      (!verdicts.length || verdicts.includes(verdict(row))) &&
      (!severity.value || number(row.cells[firstCount + severities.indexOf(severity.value)]) > 0) &&
      (!rule.value || (row.dataset.rules ?? "").split(" ").includes(rule.value)) &&
      words.every((word) => texts.get(row).includes(word))
    );
  }

  function filterFindings(section) {
    let hidden = 0;
    for (const finding of section.querySelectorAll(".finding")) {
      finding.hidden =
        (severity.value !== "" && finding.dataset.severity !== severity.value) ||
        (rule.value !== "" && !finding.dataset.rules.split(" ").includes(rule.value));
      hidden += finding.hidden ? Number(finding.dataset.count) : 0;
    }
    for (const notes of section.querySelectorAll("details.notes")) {
      notes.hidden = !notes.querySelector(".finding:not([hidden])");
    }
    const line = section.querySelector(".hidden-findings");
    line.hidden = hidden === 0;
    line.textContent = `${hidden} hidden by the filters`;
  }

  function filter() {
    const verdicts = pressed();
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const seen = new Set();
    let count = 0;
    for (const row of rows) {
      row.hidden = !matches(row, verdicts, words);
      if (row.hidden) continue;
      count += 1;
      seen.add(loss(row));
    }
    for (const section of sections()) {
      section.hidden = !seen.has(section.id);
      filterFindings(section);
    }
    all.hidden = count === 0;
    nothing.hidden = count > 0;
    document.getElementById("left").textContent =
      (sections().length ? `${count} of ${rows.length} implementations, ` : "") +
      `${seen.size} of ${losses} losses`;
  }

  function write() {
    const state = new URLSearchParams();
    if (pressed().length) state.set("verdict", pressed().join(","));
    if (severity.value) state.set("findings", severity.value);
    if (rule.value) state.set("rule", rule.value);
    if (search.value) state.set("q", search.value);
    if (sorted.column >= 0) state.set("sort", (sorted.down ? "-" : "") + keys[sorted.column]);
    const text = state.toString();
    history.replaceState(null, "", text ? `#?${text}` : "#");
  }

  function read() {
    const state = new URLSearchParams(location.hash.slice(2));
    const verdicts = (state.get("verdict") ?? "").split(",");
    for (const tile of tiles) tile.ariaPressed = String(verdicts.includes(tile.dataset.verdict));
    severity.value = severities.includes(state.get("findings")) ? state.get("findings") : "";
    rule.value = state.get("rule") ?? "";
    if (rule.selectedIndex < 0) rule.value = "";
    search.value = state.get("q") ?? "";
    const sort = state.get("sort") ?? "";
    const column = keys.indexOf(sort.replace(/^-/, ""));
    sorted = column < 0 ? usual : { column, down: sort.startsWith("-") };
    order();
    filter();
  }

  function changed() {
    filter();
    write();
  }

  function clear() {
    history.replaceState(null, "", "#");
    read();
    search.focus();
  }

  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const again = sorted.column === column;
      // Numbers begin with the largest, since that is what one looks for.
      sorted = { column, down: again ? !sorted.down : header.dataset.kind === "number" };
      order();
      write();
    });
  });
  for (const tile of tiles) {
    tile.disabled = false;
    tile.addEventListener("click", () => {
      tile.ariaPressed = String(tile.ariaPressed !== "true");
      changed();
    });
  }
  search.addEventListener("input", changed);
  severity.addEventListener("change", changed);
  rule.addEventListener("change", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    clear();
  });
  nothing.querySelector("button").addEventListener("click", clear);
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#?") || location.hash === "") return read();
    // A link to a loss that the filters hide takes them off.
    const target = document.getElementById(location.hash.slice(1));
    const section = target?.closest("section.loss");
    if (section?.hidden || target?.hidden) {
      for (const tile of tiles) tile.ariaPressed = "false";
      severity.value = rule.value = search.value = "";
      filter();
      target.scrollIntoView();
    }
  });
  form.hidden = false;
  // A telephone has the cards; the rows come when they are asked for.
  if (sections().length && matchMedia("(max-width: 40rem)").matches) all.open = false;
  if (location.hash.startsWith("#?")) read();
  else {
    order();
    filter();
  }
}

for (const part of document.querySelectorAll(".bar i")) part.style.flexGrow = part.dataset.share;
