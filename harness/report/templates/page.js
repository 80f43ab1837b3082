"use strict";
// What every page has: the choice of the colours, buttons that copy, and links that open what they lead to.
const root = document.documentElement;
const themes = ["system", "light", "dark"];

// A browser may refuse to keep anything for a file on disk; the choice then holds until the page is left.
function kept(value) {
  try {
    if (value !== undefined) localStorage.setItem("loss-harness-colours", value);
    return localStorage.getItem("loss-harness-colours");
  } catch {
    return null;
  }
}

function choose(theme) {
  root.dataset.theme = theme;
  const label = document.querySelector("#theme span");
  if (label) label.textContent = theme;
}
choose(themes.includes(kept()) ? kept() : "system");

// `navigator.clipboard` is not there for every file on disk; a selection can be copied everywhere.
async function copy(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not permitted here: copy the selection instead
    }
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// The place that the address names may lie in something closed.
function reveal() {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  const inner = target.querySelector(":scope > details");
  if (inner) inner.open = true;
  target.scrollIntoView();
}

document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("theme");
  button.hidden = false;
  choose(root.dataset.theme);
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
    choose(next);
    kept(next);
  });
  for (const each of document.querySelectorAll("button.copy")) each.hidden = false;
  document.addEventListener("click", async (event) => {
    const pressed = event.target.closest("button.copy");
    if (!pressed) return;
    const done = await copy(pressed.parentElement.querySelector("code").textContent);
    pressed.firstChild.textContent = done ? "Copied" : "Select and copy";
    setTimeout(() => (pressed.firstChild.textContent = "Copy"), 2000);
  });
  reveal();
  addEventListener("hashchange", reveal);
});
