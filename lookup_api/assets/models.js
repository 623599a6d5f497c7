// Where models are routed to, and how they have done since the server started.

import { ask, element, keepKey, say } from "./door.js";

const MOVED = 0.25; // of a stability index: from here on somebody should look into it
const form = document.getElementById("ask");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  read();
});
keepKey(form.elements.key);
read();

async function read() {
  const shown = document.getElementById("answer");
  try {
    const answer = await ask("/v1/models");
    put("routes", routes(answer.surfaces));
    put("models", models(answer.models));
    put("stopped", ...stopped(answer.surfaces));
    shown.hidden = false;
    const asked = answer.models.filter((model) => model.requests).length;
    say(`${counted(answer.surfaces.length, "surface")}, ${counted(asked, "model")} asked since the server started.`);
  } catch (problem) {
    shown.hidden = true;
    say(problem.message, true);
  }
}

function routes(surfaces) {
  const rows = surfaces.flatMap((one) => {
    const share = one.canary?.sticky === "user" ? one.canary.share : 0;
    const parts = [["stable", one.stable, percent(1 - share)]];
    if (one.canary) parts.push(["canary", one.canary.model, shareOf(one.canary)]);
    for (const model of one.shadows) parts.push(["shadow", model, "shown to nobody"]);
    const changed = one.changed_at ? `${one.changed_at} by ${one.by}` : "never";
    return parts.map(([role, model, users], i) => element("tr", { "data-role": role },
      ...(i ? [] : [element("th", { scope: "row", rowspan: parts.length }, one.surface)]), cell(role), element("td", {}, element("code", {}, model)), cell(users), cell(i ? "" : changed)));
  });
  return table("Who ranks for whom.", ["surface", "variant", "model", "users", "changed"], rows);
}

function models(found) {
  const names = ["model", "routed to as", "requests", "errors", "late", "p50 ms", "p99 ms", "defaults", "stale",
    "drift of scores", "of inputs, largest", "unseen, dropped"];
  const rows = found.map((one) => {
    const { failed = 0, late = 0 } = one.outcomes;
    const { missing = 0, stale = 0 } = one.defaulted;
    return element("tr", { "data-model": one.model },
      element("th", { scope: "row" }, element("code", {}, one.model)),
      cell(one.roles.map(({ role, surface }) => `${role} of ${surface}`).join(", ") || "–"),
      ...[one.requests.toLocaleString("en"), failed.toLocaleString("en"), late.toLocaleString("en"), ms(one.p50_ms),
        ms(one.p99_ms), part(missing + stale, one.values), part(stale, one.values)].map((text) => number(text)),
      number(...drift(one.score_psi)), number(...largest(one.input_psi)), number(unseen(one.unseen)));
  });
  const says = "Drift is a stability index beside where the model learnt: above 0.25 look into it. "
    + "Defaults are values that a model was not given. A shadow scores unseen, or drops.";
  return table(says, names, rows, 2);
}

function stopped(surfaces) {
  const rows = surfaces.flatMap((one) => one.stopped.map((canary) => element("tr", {},
    element("th", { scope: "row" }, element("code", {}, canary.model)), cell(one.surface), cell(canary.at),
    cell(canary.why))));
  if (!rows.length) return [];
  const scroll = element("div", { class: "scroll", role: "region", "aria-labelledby": "stopped-title", tabindex: "0" },
    table("They are not routed to again unless forced.", ["model", "surface", "when", "why"], rows));
  return [element("h2", { id: "stopped-title" }, "Taken off"), scroll];
}

/** A table; columns from the numeric-th on are numbers. */
function table(caption, names, rows, numeric = names.length) {
  const head = names.map((name, i) => element("th", { scope: "col", ...(i >= numeric ? { class: "number" } : {}) }, name));
  return element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...rows));
}

function put(id, ...found) {
  document.getElementById(id).replaceChildren(...found);
}

function cell(text) {
  return element("td", {}, text);
}

function number(...parts) {
  return element("td", { class: "number" }, ...parts);
}

function drift(value) {
  if (value === null || value === undefined) return ["–"];
  const text = value.toFixed(2);
  return value > MOVED ? [text, " ", element("span", { class: "badge moved" }, "moved")] : [text];
}

function largest(inputs) {
  const [name, value] = Object.entries(inputs).sort((a, b) => b[1] - a[1])[0] ?? [];
  return name === undefined ? ["–"] : [element("code", {}, name), " ", ...drift(value)];
}

function unseen(outcomes) {
  const { answered = 0, ...others } = outcomes;
  const left = Object.values(others).reduce((sum, count) => sum + count, 0);
  return answered || left ? `${answered.toLocaleString("en")}, ${left.toLocaleString("en")}` : "–";
}

function shareOf(canary) {
  return canary.sticky === "client" ? `up to ${percent(canary.share)}, who ask for it` : percent(canary.share);
}

function percent(share) {
  return `${+(share * 100).toFixed(2)} %`;
}

function part(some, all) {
  return all ? `${((some / all) * 100).toFixed(1)} %` : "–";
}

function ms(value) {
  return value === null ? "–" : value.toFixed(1);
}

function counted(count, name) {
  return `${count || "No"} ${name}${count === 1 ? "" : "s"}`;
}
