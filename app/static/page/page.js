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

// Pointing at the curve tells about the nearest length of those that were estimated, and a click takes it.
function markAt(event) {
  const area = event.target.closest?.("[data-marks]");
  if (!area) return null;
  const box = area.getBoundingClientRect();
  const at = (100 * (event.clientX - box.left)) / box.width;
  const marks = area.dataset.marks.split(";").map((text) => text.split(" "));
  const [tokens, x, y, expected, upper] = marks.reduce((a, b) => (Math.abs(a[1] - at) <= Math.abs(b[1] - at) ? a : b));
  return { tokens, x: Number(x), y, expected, upper };
}

function tellOfMark(event) {
  const tip = document.querySelector(".tip");
  const mark = markAt(event);
  tip?.classList.toggle("shown", Boolean(mark));
  if (!mark) return;
  const [line, dot, text] = tip.children;
  for (const name of ["x1", "x2"]) line.setAttribute(name, `${mark.x}%`);
  dot.setAttribute("cx", `${mark.x}%`);
  dot.setAttribute("cy", mark.y);
  text.setAttribute("x", `${mark.x}%`);
  text.setAttribute("dx", mark.x > 50 ? -8 : 8);
  text.setAttribute("text-anchor", mark.x > 50 ? "end" : "start");
  text.textContent = `${Number(mark.tokens).toLocaleString("en")} tokens: ${mark.expected} to ${mark.upper} GiB`;
}
document.addEventListener("pointermove", tellOfMark);

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
  if (event.target.closest("[data-again]")) tell(form, "live");
  if (event.target.closest("[data-look]")) { wait(LOOKING); ask(more); }
  const mark = markAt(event);
  if (mark) { set(length, mark.tokens); follow(); }
});

// What comes after an answer is of that answer's job, whatever is typed meanwhile; until it has come, what is there is of
// another job: it is dimmed, and nothing of it can be chosen. While an answer is asked for, it is not: another comes.
const more = document.getElementById("more");
const missed = document.getElementById("missed");
const LOOKING = "Looking for what to change, and at other cards…";
const LATER = "The service is busy. What to change, and other cards, are asked for again in a moment…";

// The query of the job that was answered, null where there is no answer.
function answered() {
  const share = document.getElementById("share");
  return share && new URL(share.value).search;
}

function rest() {
  missed.hidden = true;
  more.removeAttribute("aria-busy");
}

function wait(text) {
  missed.hidden = true;
  more.setAttribute("aria-busy", "true");
  more.replaceChildren(Object.assign(document.createElement("p"), { className: "waiting", textContent: text }));
}

function outdate() {
  rest();
  if (answered() === null) return more.replaceChildren();
  if (!more.querySelector(".card")) return wait(LOOKING);
  more.setAttribute("aria-busy", "true");
  for (const card of more.children) card.inert = true;
}

const addressOfMore = () => `/page/more${answered() ?? ""}`;
const isOutdated = ({ target, pathInfo }) => target === more && pathInfo.requestPath !== addressOfMore();

document.body.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt !== more) return;
  if (answered() === null || form.classList.contains("htmx-request")) return event.preventDefault();
  event.detail.path = addressOfMore();
});
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (isOutdated(event.detail)) event.detail.shouldSwap = false;
});

// Where no answer comes, that is said, and what was answered last stays; what comes after does not, as it may be another
// job's. A service that is busy says when to ask again; a session that has ended is begun anew.
const lost = document.getElementById("lost");
const BUSY = [429, 503];
function ask(part) {
  if (part.id === "answer") tell(form, "live");
  else if (part === more) tell(document.body, "answered");
}
function miss(part) {
  if (part === more) {
    rest();
    more.replaceChildren();
    missed.hidden = false;
  } else if (part.id === "answer") {
    lost.hidden = false;
    if (more.hasAttribute("aria-busy")) ask(more);
  }
}
document.body.addEventListener("htmx:responseError", (event) => {
  const { xhr, target } = event.detail;
  if (xhr.status === 401) return location.reload();
  if (isOutdated(event.detail)) return;
  const isBusy = BUSY.includes(xhr.status);
  if (isBusy && target === more) wait(LATER);
  else miss(target);
  if (isBusy) setTimeout(ask, 1000 * (Number(xhr.getResponseHeader("retry-after")) || 2), target);
});
document.body.addEventListener("htmx:sendError", (event) => {
  if (!isOutdated(event.detail)) miss(event.detail.target);
});

// The tab and the address of the JSON are of what is shown.
function entitle() {
  const verdict = document.getElementById("verdict");
  const told = document.querySelector("#answer .eyebrow").textContent;
  document.title = `${verdict ? `${verdict.textContent}: ` : ""}${told} · ctxplan`;
  const query = answered();
  for (const link of document.querySelectorAll("#json, link[rel=alternate]")) {
    if (query === null) link.removeAttribute("href");
    else link.href = `/planner.json${query}`;
  }
  document.getElementById("json").hidden = query === null;
  document.getElementById("known").hidden = query !== null;
}

// After an answer: the other parts follow, and the groups that were open stay so.
let opened = [];
let tab = null;
const kept = () => [...document.querySelectorAll("[data-keep]")];
document.body.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id !== "answer") return;
  opened = kept().filter((one) => one.open).map((one) => one.dataset.keep);
  tab = document.querySelector(".tabs input:checked")?.id;
  // htmx would say good-bye to each of some hundred elements, which takes longer than to make the new ones.
  if (event.detail.shouldSwap) for (const id of ["answer", "take"]) document.getElementById(id).replaceChildren();
});
document.body.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target === more) rest();
  if (event.detail.target.id !== "answer") return;
  lost.hidden = true;
  outdate();
  entitle();
  for (const one of kept()) one.open = opened.includes(one.dataset.keep);
  if (tab) document.getElementById(tab)?.click();
  const faulty = document.getElementById("fault")?.querySelector("code")?.textContent;
  for (const field of form.elements) {
    if (field.name && field.name === faulty) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
});

if (matchMedia("(min-width: 920px)").matches) for (const one of document.querySelectorAll("[data-open-wide]")) one.open = true;
