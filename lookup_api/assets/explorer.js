// The Explorer: a user's list with reasons, who is known in common, and events whose effect shows at once.

import { ask, element, keepKey, say } from "./door.js";
import { mutualGraph, mutualSays } from "./graph.js";

const ACTS = { Connect: "connected", Dismiss: "dismissed", Block: "blocked" };
const form = document.getElementById("ask");
const people = document.getElementById("people");
let shown = null;
let asked = 0;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  open(form.elements.user.value.trim());
});
window.addEventListener("popstate", fromAddress);
keepKey(form.elements.key);
fromAddress();

function fromAddress() {
  const user = new URLSearchParams(location.search).get("user");
  if (user === null) return;
  form.elements.user.value = user;
  read();
}

/** Goes to a user's list, so that the browser's way back leads here again. */
function open(user) {
  form.elements.user.value = user;
  history.pushState(null, "", `?${new URLSearchParams({ user })}`);
  return read();
}

/** Reads and shows the list of the user in the form. An answer that a later question has overtaken is dropped. */
async function read(before = "") {
  const mine = ++asked;
  const user = form.elements.user.value.trim();
  const path = `/v1/users/${encodeURIComponent(user)}/recommendations?limit=${form.elements.limit.value || 20}`;
  const start = performance.now();
  try {
    const answer = await ask(path);
    if (mine === asked) show(answer, performance.now() - start, before);
  } catch (problem) {
    if (mine !== asked) return;
    document.getElementById("answer").hidden = true;
    document.getElementById("facts").hidden = true;
    say(problem.message, true);
  }
}

function show(answer, ms, before) {
  shown = answer;
  const count = answer.items.length;
  say(`${before}${count || "No"} ${count === 1 ? "person" : "people"} for ${answer.user_id}.`);
  const facts = { rung: answer.source, time: `${ms.toFixed(1)} ms`, cache: answer.cache, degraded: answer.degraded ? "yes" : "no",
    release: answer.release, age: aged(answer.age_s) };
  const list = document.getElementById("facts");
  list.replaceChildren(...Object.entries(facts).map(([name, value]) => fact(name, value)));
  list.hidden = false;
  people.replaceChildren(...answer.items.map(row));
  document.getElementById("answer").hidden = false;
  clearGraph();
}

function fact(name, value) {
  return element("li", { "data-fact": name }, `${name} `, element("b", {}, value));
}

function aged(seconds) {
  if (seconds < 7200) return `${Math.round(seconds / 60)} minutes`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} hours` : `${Math.round(seconds / 86400)} days`;
}

function row(item) {
  const who = element("button", { type: "button", class: "who", title: "Show this person's list" }, item.user_id);
  who.addEventListener("click", () => open(item.user_id));
  const why = element("p", { class: "why" }, item.reasons.map(reason).join(" · "));
  const acts = element("div", { class: "acts" }, shared(item), ...Object.keys(ACTS).map((name) => act(name, item)));
  const rank = element("span", { class: "rank" }, String(item.rank));
  return element("li", { "data-user": item.user_id }, rank, element("div", {}, who, why), acts);
}

/** A reason in words; one of a kind that this page does not know is told as it is. */
function reason({ kind, attribute, value, count }) {
  const friends = `${count} ${count === 1 ? "friend" : "friends"}`;
  const more = count > 1 ? ` and ${count - 1} more` : "";
  const words = {
    mutual_connections: `${friends} in common`,
    same_attribute: `same ${attribute} (${value})`,
    same_affiliation: `same ${attribute} (${value})${more}`,
    near_in_network: "close in the network",
    popular: `known by ${count}`,
  };
  return words[kind] ?? [kind, attribute, value, count].filter((part) => part !== undefined).join(" ");
}

function shared(item) {
  const button = element("button", { type: "button", "aria-label": `Friends in common with ${item.user_id}` }, "In common");
  button.addEventListener("click", () => draw(item.user_id));
  return button;
}

async function draw(other) {
  const user = shown.user_id;
  try {
    const found = await ask(`/v1/users/${user}/mutual/${other}`);
    if (shown.user_id !== user) return;
    const says = element("figcaption", { id: "graph-says" }, mutualSays(found));
    document.getElementById("graph").replaceChildren(mutualGraph(found), says);
    for (const one of people.children) one.toggleAttribute("data-chosen", one.dataset.user === other);
  } catch (problem) {
    say(problem.message, true);
  }
}

function clearGraph() {
  const says = element("figcaption", { id: "graph-says" }, "Choose somebody to see whom both know.");
  document.getElementById("graph").replaceChildren(says);
}

function act(name, item) {
  const button = element("button", { type: "button", "aria-label": `${name} ${item.user_id}` }, name);
  button.addEventListener("click", () => send(name, item.user_id));
  return button;
}

/** Records an event and reads the list again, which must obey it. */
async function send(name, other) {
  const user = shown.user_id;
  const place = [...people.children].findIndex((one) => one.dataset.user === other);
  const event = { event_id: crypto.randomUUID?.() ?? `explorer-${Date.now()}-${Math.random()}`, type: ACTS[name],
    user_id: user, other_id: other, at: new Date().toISOString() };
  try {
    const told = await ask("/v1/events", { events: [event] });
    if (told.rejected.length) throw new Error(told.rejected[0].detail);
    if (shown.user_id !== user) return;
    await read(`${name}: ${other}. `);
    const next = people.children[Math.min(place, people.children.length - 1)];
    (next?.querySelector("button") ?? form.elements.user).focus();
  } catch (problem) {
    say(problem.message, true);
  }
}
