// What the page's links and form cannot do by themselves: the list of models, the slider, copying. The answers come
// from the service, through htmx.
"use strict";

const form = document.getElementById("job");
const model = document.getElementById("model");
const list = document.getElementById("models");
const length = document.getElementById("max_seq_length");
const slide = document.getElementById("slide");

const tell = (element, name) => element.dispatchEvent(new CustomEvent(name, { bubbles: true }));
const set = (field, value) => { field.value = value; tell(form, "live"); };

// The list of models: the pattern "combobox with a list popup" of the ARIA practices.
const options = () => [...list.querySelectorAll("[data-value]")];
const chosen = () => options().find((option) => option.getAttribute("aria-selected") === "true");

function show(open) {
  list.hidden = !open;
  model.setAttribute("aria-expanded", String(open));
  if (!open) model.removeAttribute("aria-activedescendant");
}

function point(option) {
  for (const one of options()) one.setAttribute("aria-selected", String(one === option));
  if (!option) return model.removeAttribute("aria-activedescendant");
  model.setAttribute("aria-activedescendant", option.id);
  option.scrollIntoView({ block: "nearest" });
}

function choose(option) {
  show(false);
  set(model, option.dataset.value);
}

function move(step) {
  const all = options();
  if (list.hidden || !all.length) return tell(model, "search");
  const now = all.indexOf(chosen());
  point(all[(now + step + all.length + (now < 0 && step < 0 ? 1 : 0)) % all.length]);
}

function key(event) {
  if (event.key === "ArrowDown") move(1);
  else if (event.key === "ArrowUp") move(-1);
  else if (event.key === "Escape" && !list.hidden) show(false);
  else if (event.key === "Enter" && !list.hidden && chosen()) choose(chosen());
  else {
    if (event.key === "Enter") show(false);
    return;
  }
  event.preventDefault();
}

model.addEventListener("input", (event) => { event.stopPropagation(); tell(model, "search"); });
model.addEventListener("click", () => model.select());
model.addEventListener("keydown", key);
// A choice moves the focus away for a moment, which says "change" with what was typed: that is no answer's question yet.
model.addEventListener("change", (event) => { if (!list.hidden && chosen()) event.stopPropagation(); });
model.addEventListener("blur", () => show(false));
list.addEventListener("mousedown", (event) => event.preventDefault());
list.addEventListener("click", (event) => {
  const option = event.target.closest("[data-value]");
  if (option) choose(option);
});
list.addEventListener("htmx:afterSwap", () => show(document.activeElement === model));

// A slider of powers of two beside the field of the context length.
const tokens = () => Number(length.value.replace(/[\s,_]/g, ""));
const follow = () => { if (tokens() > 0) slide.value = Math.log2(tokens()); };
slide.hidden = false;
follow();
slide.addEventListener("input", () => {
  const many = Math.round(2 ** Number(slide.value));
  length.value = many < 10000 ? many : Math.round(many / 100) * 100;
  tell(form, "live");
});
slide.addEventListener("change", (event) => event.stopPropagation());

form.addEventListener("input", (event) => {
  if (!event.target.matches("[data-live]")) return;
  if (event.target === length) follow();
  tell(form, "live");
});
form.addEventListener("change", (event) => { if (event.target.matches("[data-live]")) event.stopPropagation(); }, true);

// Copying works on plain HTTP as well, where browsers offer no clipboard: by selecting.
async function copied(element) {
  const text = element.value ?? element.textContent;
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  if (element.select) element.select();
  else getSelection().selectAllChildren(element);
  return document.execCommand("copy");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) {
    const said = button.textContent;
    button.textContent = (await copied(document.getElementById(button.dataset.copy))) ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = said; }, 1500);
  }
  const offered = event.target.closest("[data-set]");
  if (offered) set(document.getElementById(offered.dataset.set), offered.dataset.value);
  const strip = event.target.closest("[data-length]");
  if (strip) { set(length, strip.dataset.length); follow(); }
});

// After an answer: the other parts' addresses follow, and the tab, and the groups that were open stay so.
let opened = [];
let tab = null;
const kept = () => [...document.querySelectorAll("[data-keep]")];
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "answer") return;
  opened = kept().filter((one) => one.open).map((one) => one.dataset.keep);
  tab = document.querySelector(".tabs input:checked")?.id;
});
document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "answer") return;
  for (const one of kept()) one.open = opened.includes(one.dataset.keep);
  if (tab) document.getElementById(tab)?.click();
  const faulty = document.getElementById("fault")?.querySelector("code")?.textContent;
  for (const field of form.elements) {
    if (field.name && field.name === faulty) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  const verdict = document.getElementById("verdict");
  if (verdict) document.title = `${verdict.textContent}: ${document.querySelector(".verdict-card .eyebrow").textContent} · ctxplan`;
  const json = document.getElementById("json");
  const share = document.getElementById("share");
  if (json && share) json.href = `/planner.json${new URL(share.value).search}`;
});

if (matchMedia("(min-width: 920px)").matches) for (const one of document.querySelectorAll("[data-open-wide]")) one.open = true;
