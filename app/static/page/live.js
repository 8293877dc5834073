// Keeps a page of the queue as it is now: asked for again from time to time by htmx, and at once when the service tells of
// a change by server-sent events.
"use strict";

const live = () => document.getElementById("live");
const said = document.getElementById("said");
const stale = document.getElementById("stale");
let told = live().dataset.said;

// Not while a person is about to answer a question or to copy something, nor where nobody looks.
function isBusy() {
  const selection = getSelection();
  const selects = !selection.isCollapsed && live().contains(selection.anchorNode);
  return document.hidden || selects || live().querySelector("details[data-confirm][open]");
}

document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target === live() && isBusy()) event.preventDefault();
});
document.body.addEventListener("htmx:afterSwap", () => {
  stale.hidden = true;
  if (live().dataset.said !== told) said.textContent = told = live().dataset.said;
  if (!live().dataset.events) events?.close();
});
document.body.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) location.reload();
  stale.hidden = false;
});
document.body.addEventListener("htmx:sendError", () => { stale.hidden = false; });

const events = live().dataset.events ? new EventSource(live().dataset.events) : null;
const changed = () => { if (live().dataset.events) htmx.trigger(live(), "changed"); };
// The first event says how it stands, which the page mostly shows already.
events?.addEventListener("state", (event) => {
  const { state, jobs } = JSON.parse(event.data);
  if ([state, ...Object.entries(jobs).flat()].join(" ") !== live().dataset.seen) changed();
});
// Nothing more comes from a stream that the service has ended; what was missed meanwhile is asked for when looked at.
events?.addEventListener("error", changed);
document.addEventListener("visibilitychange", () => { if (!document.hidden) changed(); });
